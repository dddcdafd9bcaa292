import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_BYTES, SWEEP_RUN_PAGES } from "../../../src/base/index.js";
import { FrameChannel } from "../../../src/transfer/channel.js";
import type { FrameLane } from "../../../src/transfer/index.js";
import { decodeFrame, type Frame } from "../../../src/wire/index.js";

const PAGES = 1024;

function pagesOf(fill: number, pageCount: number): Frame {
  const data = Buffer.alloc(pageCount * PAGE_BYTES, fill);
  return { kind: "pages", runs: [{ firstPage: 0, pageCount, encoding: "raw", origin: "sweep", data }] };
}

/** A lane that lags behind: what it was handed is read only when `flush` is called. */
class LateLane implements FrameLane {
  readonly queuedBytes = 0;
  readonly backings = new Set<ArrayBufferLike>();
  readonly arrived: Buffer[] = [];
  readonly #waiting: { frame: Uint8Array; onTaken: (() => void) | undefined }[] = [];

  send(frame: Uint8Array, onTaken?: () => void): void {
    this.backings.add(frame.buffer);
    this.#waiting.push({ frame, onTaken });
  }

  attach(): void {}
  close(): void {}

  flush(): void {
    for (const { frame, onTaken } of this.#waiting.splice(0)) {
      this.arrived.push(Buffer.from(frame));
      onTaken?.();
    }
  }
}

test("frames that the network has not taken keep their bytes, and those it has give their buffers to the next", () => {
  const lane = new LateLane();
  const handlers = { onFrame: () => {}, onEnd: () => {} };
  const channel = new FrameChannel({ lane, transfer: 1, pageCount: PAGES, handlers });
  let sequence = 0;
  for (let round = 0; round < 10; round += 1) {
    for (let fill = 1; fill <= 4; fill += 1)
      channel.send(pagesOf(fill + round, fill % 2 === 0 ? 1 : SWEEP_RUN_PAGES));
    lane.flush();
  }
  for (const [index, bytes] of lane.arrived.entries()) {
    const frame = decodeFrame(bytes, { transfer: 1, sequence: (sequence += 1), pageCount: PAGES });
    assert.ok(frame.kind === "pages");
    const fill = 1 + (index % 4) + Math.floor(index / 4);
    assert.ok(frame.runs[0]?.data.every((byte) => byte === fill));
  }
  assert.equal(lane.arrived.length, 40);
  assert.equal(lane.backings.size, 4);
});
