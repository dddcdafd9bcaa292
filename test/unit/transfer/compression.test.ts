import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  AdaptiveCompression,
  contentBytesOf,
  type CompressionOptions,
} from "../../../src/transfer/compression.js";

const FRAME_BYTES = 64 * 1024;
const WINDOW_BYTES = 512 * 1024;

/** A link, the processors at its ends, and content. */
interface World {
  bytesPerUs: number;
  /** Bytes of content in a byte of lz4. */
  ratio: number;
  /** What a frame costs the parent in either kind. */
  rawUs: number;
  lz4Us: number;
}

const LOOPBACK: World = { bytesPerUs: 2500, ratio: 2, rawUs: 30, lz4Us: 110 };
const GIGABIT: World = { bytesPerUs: 125, ratio: 3, rawUs: 30, lz4Us: 110 };
const SLOW: World = { ...GIGABIT, bytesPerUs: 1.25 };

/** A sender that always has more to send, over a window. */
class Sender {
  readonly compression: AdaptiveCompression;
  nowUs = 0;
  lz4Frames = 0;
  rawFrames = 0;
  #queue: { bytes: number; takenAtUs: number }[] = [];
  #linkFreeUs = 0;
  #inFlight = 0;

  constructor(options: Partial<CompressionOptions> = {}) {
    this.compression = new AdaptiveCompression({ choice: "auto", first: false, ...options });
  }

  /** Sends for so long; what the child credits it credits at once. */
  send(world: World, forUs: number): void {
    const endUs = this.nowUs + forUs;
    while (this.nowUs < endUs) {
      this.#credit();
      const [oldest] = this.#queue;
      if (this.#inFlight >= WINDOW_BYTES && oldest !== undefined) this.nowUs = oldest.takenAtUs;
      else this.#sendOne(world);
    }
  }

  /** Nothing to send for a while. */
  rest(forUs: number): void {
    this.compression.idle();
    this.nowUs += forUs;
    this.#credit();
  }

  /** The connection is lost, with all that was in flight. */
  lose(): void {
    this.#queue = [];
    this.#inFlight = 0;
    this.compression.reset();
  }

  #sendOne({ bytesPerUs, ratio, rawUs, lz4Us }: World): void {
    const lz4 = this.compression.on;
    if (lz4) this.lz4Frames += 1;
    else this.rawFrames += 1;
    const wireBytes = Math.round(lz4 ? FRAME_BYTES / ratio : FRAME_BYTES);
    const tookUs = lz4 ? lz4Us : rawUs;
    this.nowUs += tookUs;
    this.#linkFreeUs = Math.max(this.#linkFreeUs, this.nowUs) + wireBytes / bytesPerUs;
    this.#queue.push({ bytes: wireBytes, takenAtUs: this.#linkFreeUs + 50 });
    this.#inFlight += wireBytes;
    this.compression.sent({ wireBytes, contentBytes: FRAME_BYTES, tookUs }, this.nowUs);
  }

  #credit(): void {
    while (this.#queue[0] !== undefined && this.#queue[0].takenAtUs <= this.nowUs) {
      const { bytes } = this.#queue.shift() as { bytes: number };
      this.#inFlight -= bytes;
      this.compression.credited(bytes, this.nowUs);
    }
  }
}

describe("adaptive compression", () => {
  test("settles on raw within a moment where compressing costs more than it saves", () => {
    const sender = new Sender();
    sender.send(LOOPBACK, 50_000);
    const { now, measured } = sender.compression.progress();
    assert.equal(now, "none");
    assert.ok(measured !== undefined && measured.rawBytesPerSecond > measured.lz4BytesPerSecond);
    assert.ok(Math.abs(measured.ratio - 2) < 0.1);
    assert.ok(Math.abs(measured.lz4UsPerMib - 80 * 16) < 10);
    const { lz4Frames } = sender;
    sender.send(LOOPBACK, 1e6);
    assert.equal(sender.lz4Frames, lz4Frames, "and stays there");
  });

  test("settles on lz4 where the link is what is short, however it began", () => {
    for (const [world, forUs] of [
      [GIGABIT, 200_000],
      [SLOW, 20e6],
    ] as const) {
      for (const first of [true, false]) {
        const sender = new Sender({ first });
        sender.send(world, forUs);
        const { now, measured } = sender.compression.progress();
        assert.equal(now, "lz4");
        const gain = (measured?.lz4BytesPerSecond ?? 0) / (measured?.rawBytesPerSecond ?? 1);
        assert.ok(gain > 2.5 && gain < 3.5, `${gain}`);
      }
    }
  });

  test("stays raw when content does not become less", () => {
    const sender = new Sender({ first: true });
    sender.send({ ...GIGABIT, ratio: 1 }, 1e6);
    assert.equal(sender.compression.progress().now, "none");
  });

  test("hardly tries while content does not become less, and finds out when it does", () => {
    const sender = new Sender({ first: true });
    sender.send(GIGABIT, 500_000);
    assert.equal(sender.compression.progress().now, "lz4");
    const before = sender.lz4Frames;
    sender.send({ ...GIGABIT, ratio: 1 }, 1e6);
    const tried = sender.lz4Frames - before;
    assert.ok(tried > 0 && tried < 120, `${tried} tries`);
    const { rawFrames } = sender;
    sender.send(GIGABIT, 300_000);
    assert.ok(sender.rawFrames - rawFrames <= 32);
  });

  test("begins as it was learned, and looks whether it is so in time", () => {
    const sender = new Sender({ choice: "auto", first: true, learned: true });
    sender.send(LOOPBACK, 1e6);
    assert.deepEqual(sender.compression.progress(), { choice: "auto", now: "lz4" });
    assert.equal(sender.rawFrames, 0);
    sender.send(LOOPBACK, 2e6);
    assert.equal(sender.compression.progress().now, "none");
    const told = new Sender({ choice: "none", first: true, learned: true });
    told.send(SLOW, 10e6);
    assert.equal(told.lz4Frames, 0);
  });

  test("finds out that a link has become slow, and seldom looks when nothing changes", () => {
    const sender = new Sender();
    sender.send(LOOPBACK, 1e6);
    sender.send(GIGABIT, 3e6);
    assert.equal(sender.compression.progress().now, "lz4");
    sender.send(GIGABIT, 60e6);
    const { rawFrames } = sender;
    sender.send(GIGABIT, 60e6);
    assert.ok(sender.rawFrames - rawFrames < 200, `${sender.rawFrames - rawFrames} raw frames in a minute`);
    sender.send(LOOPBACK, 180e6);
    assert.equal(sender.compression.progress().now, "none");
  });

  test("needs a gain to begin, and keeps what it has at a smaller one", () => {
    const slight: World = { bytesPerUs: 125, ratio: 1.1, rawUs: 30, lz4Us: 110 };
    const fresh = new Sender();
    fresh.send(slight, 1e6);
    assert.equal(fresh.compression.progress().now, "none");
    const used = new Sender();
    used.send(GIGABIT, 1e6);
    used.send(slight, 5e6);
    assert.equal(used.compression.progress().now, "lz4");
  });

  test("does not take processors that were busy for a slow link, where lz4 saves nothing", () => {
    const sender = new Sender({ first: true });
    const busy = { bytesPerUs: 50, ratio: 1.01, rawUs: 3000, lz4Us: 110 };
    sender.send(busy, 2e6);
    const { now, measured } = sender.compression.progress();
    assert.ok(measured !== undefined && measured.lz4BytesPerSecond > measured.rawBytesPerSecond);
    assert.equal(now, "none");
  });

  test("is not misled by pauses in which there is nothing to send", () => {
    const sender = new Sender();
    for (let turn = 0; turn < 400; turn += 1) {
      sender.send(GIGABIT, 20_000);
      sender.rest(500_000);
    }
    assert.equal(sender.compression.progress().now, "lz4");
  });

  test("begins anew after the connection was lost", () => {
    const sender = new Sender();
    sender.send(GIGABIT, 6000);
    sender.lose();
    assert.equal(sender.compression.progress().measured, undefined);
    sender.send(GIGABIT, 300_000);
    assert.equal(sender.compression.progress().now, "lz4");
  });

  test("does as it is told, and never what the child cannot read", () => {
    const always = new Sender({ choice: "lz4" });
    always.send(LOOPBACK, 1e6);
    assert.deepEqual([always.rawFrames, always.compression.progress()], [0, { choice: "lz4", now: "lz4" }]);
    always.compression.choose("none");
    assert.deepEqual(always.compression.progress(), { choice: "none", now: "none" });
    always.compression.choose("auto");
    always.send(GIGABIT, 1e6);
    assert.equal(always.compression.progress().now, "lz4");
    always.compression.forbid();
    const { lz4Frames } = always;
    always.compression.choose("lz4");
    always.send(GIGABIT, 1e6);
    assert.deepEqual([always.lz4Frames, always.compression.progress().now], [lz4Frames, "none"]);
  });

  test("counts as content what is not zero", () => {
    const run = { firstPage: 0, pageCount: 3, origin: "sweep", data: new Uint8Array(0) } as const;
    const runs = [{ ...run, encoding: "zero" } as const, { ...run, encoding: "lz4", pageCount: 2 } as const];
    assert.equal(contentBytesOf({ kind: "pages", runs }), 8192);
    assert.equal(contentBytesOf({ kind: "done" }), 0);
  });
});
