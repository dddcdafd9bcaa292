import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { bytesOf } from "../../../proto/vectors/bytes.js";
import type { BlockRefusedVector, BlockVector } from "../../../proto/vectors/schema.js";
import { MAX_BLOCK_READ_BYTES, MAX_BLOCK_RUN_BYTES } from "../../../src/base/index.js";
import { NbdNegotiation } from "../../../src/disk/nbd-negotiation.js";
import { MAX_WRITE_BYTES, NbdReceiver } from "../../../src/disk/nbd-receiver.js";
import { decodeBlockFrame, encodeBlockFrame, unpackContent, WireError } from "../../../src/wire/index.js";
import { clientFlags, clientOption, clientRequest, contextData, goData } from "../../support/nbd-raw.js";
import { orRefusal, type Target } from "../engine/target.js";

const HEADER_BYTES = 16;
const SMALL_BYTES = 256 * 1024;

/** Where every vector's frame stands, and the disks that were granted there. */
const AT = { transfer: 0x01020304, sequence: 5 };
const EXPECT = { ...AT, sizes: [1 << 20, 5 * 1024 ** 4] };

const vectors = JSON.parse(
  readFileSync(new URL("../../../proto/vectors/v1/blocks.json", import.meta.url), "utf8"),
) as { frames: BlockVector[]; refused: BlockRefusedVector[] };

/** Frames as a peer sends them on a block lane. */
export const wireBlocks: Target = {
  name: "wire-blocks",
  covers: ["src/wire/"],
  format: "bytes",
  maxInputBytes: 24 * 1024,
  *seeds() {
    for (const { bytes } of [...vectors.frames, ...vectors.refused]) {
      const seed = bytesOf(bytes);
      if (seed.length <= 24 * 1024) yield seed;
    }
  },
  allocationBytes: (inputBytes) =>
    SMALL_BYTES + inputBytes * 16 + 2 * MAX_BLOCK_READ_BYTES + MAX_BLOCK_RUN_BYTES * 64,
  repair(input, random) {
    if (input.length < HEADER_BYTES) return input;
    input.writeUInt32BE(input.length - HEADER_BYTES, 12);
    const map = encodeBlockFrame({ kind: "map", request: 1, disk: 0, offset: 0, lengthBytes: 1 }, AT);
    if (random.chance(0.9)) map.copy(input, 2, 2, 12);
    return input;
  },
  run: (input) =>
    orRefusal(WireError, () => {
      const frame = decodeBlockFrame(input, EXPECT);
      if (frame.kind === "failed") return frame.kind;
      assert.deepEqual(encodeBlockFrame(frame, AT), input, "a frame decoded and encoded is the same frame");
      if (frame.kind === "read" || frame.kind === "map") {
        const size = EXPECT.sizes[frame.disk];
        assert.ok(size !== undefined && frame.offset + frame.lengthBytes <= size);
      }
      if (frame.kind !== "content") return frame.kind;
      const lengthBytes = frame.runs.reduce((sum, run) => sum + run.lengthBytes, 0);
      assert.ok(lengthBytes <= 64 * MAX_BLOCK_RUN_BYTES);
      assert.equal(unpackContent(frame, lengthBytes).length, lengthBytes);
      return `content ${[...new Set(frame.runs.map(({ encoding }) => encoding))].sort().join(" ")}`;
    }),
};

/** All that an NBD client sends, read in one piece and byte by byte. */
export const diskNbd: Target = {
  name: "disk-nbd",
  covers: ["src/disk/nbd-receiver.ts", "src/disk/nbd-negotiation.ts"],
  format: "bytes",
  maxInputBytes: 4096,
  *seeds() {
    const context = contextData("disk", ["base:allocation"]);
    const greeting = Buffer.concat([clientFlags(), clientOption(8), clientOption(10, context)]);
    const go = clientOption(7, goData("disk", [3]));
    yield Buffer.concat([greeting, go, clientRequest({ type: 0, offset: 5, lengthBytes: 70_000 })]);
    yield Buffer.concat([
      greeting,
      go,
      clientRequest({ type: 1, offset: 0, lengthBytes: 4 }),
      Buffer.alloc(4),
    ]);
    yield Buffer.concat([greeting, go, clientRequest({ type: 7, offset: 0, lengthBytes: 4096, flags: 8 })]);
    yield Buffer.concat([
      clientFlags(1),
      clientOption(1, Buffer.from("disk")),
      clientRequest({ type: 2, offset: 0, lengthBytes: 0 }),
    ]);
    yield Buffer.concat([
      clientFlags(),
      clientOption(9, contextData("disk", [])),
      clientOption(3),
      clientOption(2),
    ]);
  },
  // Read byte by byte, each is a piece with a view of its own: 66 bytes on Node.js 24, a little less on 20.
  allocationBytes: (inputBytes) => SMALL_BYTES + inputBytes * 96,
  run(input) {
    const whole = said(input, input.length);
    assert.deepEqual(said(input, 1), whole, "pieces are read as the whole is");
    return whole
      .map(([what]) => what)
      .join(" ")
      .slice(0, 200);
  },
};

/** What a server says and does, fed in pieces. */
function said(input: Buffer, pieceBytes: number): [string, string][] {
  const events: [string, string][] = [];
  const negotiation = new NbdNegotiation({ exportName: "disk", sizeBytes: 1 << 20 });
  const note = (what: string, text = ""): void => void events.push([what, text]);
  const leave = (problem: string | undefined): void => {
    if (problem === undefined) return;
    note("left", problem);
    receiver.stop();
  };
  const receiver: NbdReceiver = new NbdReceiver({
    onFlags: (flags) => leave(negotiation.onFlags(flags)),
    onOption: (option, data) => {
      const { reply, next, problem } = negotiation.onOption(option, data);
      note(`option-${next}`, reply?.toString("hex"));
      leave(problem);
      if (next === "end") receiver.stop();
      return next === "request" ? "request" : "option";
    },
    onRequest: ({ type, flags, offset, lengthBytes, cookie }) => {
      assert.ok(type !== 1 || lengthBytes <= MAX_WRITE_BYTES);
      note(`request-${type}`, `${flags} ${offset} ${lengthBytes} ${cookie.toString("hex")}`);
    },
  });
  for (let at = 0; at < input.length; at += pieceBytes)
    leave(receiver.push(input.subarray(at, at + pieceBytes)));
  return events;
}
