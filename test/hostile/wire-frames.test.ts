import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { SeededRandom } from "../../src/base/index.js";
import { decodeFrame, encodeFrame, packRun, unpackRun, WireError, type Frame } from "../../src/wire/index.js";

const expect = { transfer: 7, sequence: 3, pageCount: 300 };

const small = Buffer.alloc(4096, "some text ");
const frames: Frame[] = [
  {
    kind: "pages",
    runs: [
      packRun({ firstPage: 3, origin: "fault", bytes: small, compress: true }),
      { firstPage: 9, pageCount: 200, encoding: "zero", origin: "sweep", data: new Uint8Array(0) },
    ],
  },
  { kind: "request", pages: [1, 299] },
  { kind: "received", creditBytes: 70000, runs: [{ first: 1, count: 2 }] },
  { kind: "have", last: true, runs: [{ first: 0, count: 300 }] },
  { kind: "hashes", firstPage: 2, digests: randomBytes(32) },
  { kind: "done" },
  { kind: "relayed", on: true },
];
/** Kinds without a body: one of them may stand where another does, for their place is not the wire's to know. */
const BODILESS = new Set([6, 8]);

/** Decodes and unpacks everything, as a receiver would. False for a refusal; anything else thrown is a failure. */
function accepted(bytes: Uint8Array): boolean {
  try {
    const frame = decodeFrame(bytes, expect);
    if (frame.kind === "pages") {
      for (const run of frame.runs) {
        assert.ok(run.firstPage + run.pageCount <= expect.pageCount);
        if (run.encoding !== "zero") assert.equal(unpackRun(run).length, run.pageCount * 4096);
      }
    }
    return true;
  } catch (error) {
    assert.ok(error instanceof WireError, `not a WireError: ${String(error)}`);
    return false;
  }
}

for (const frame of frames) {
  const whole = encodeFrame(frame, expect);

  test(`a ${frame.kind} frame cut at any byte, or longer by one, is refused`, () => {
    assert.ok(accepted(whole));
    for (let length = 0; length < whole.length; length += 1) assert.ok(!accepted(whole.subarray(0, length)));
    assert.ok(!accepted(Buffer.concat([whole, Buffer.alloc(1)])));
  });

  test(`a ${frame.kind} frame cut at any byte with a length to match is refused`, () => {
    for (let length = 16; length < whole.length; length += 1) {
      const cut = Buffer.from(whole.subarray(0, length));
      cut.writeUInt32BE(length - 16, 12);
      assert.ok(!accepted(cut));
    }
  });

  test(`a ${frame.kind} frame with any one byte changed is a frame or refused`, () => {
    for (let at = 0; at < whole.length; at += 1) {
      const right = whole[at] as number;
      for (let value = 0; value < 256; value += 1) {
        whole[at] = value;
        // Kind, position and length have one right value each; some of the flags and the body have more.
        const acceptable = accepted(whole);
        if (at === 1 || at >= 16 || value === right) continue;
        if (at === 0 && BODILESS.has(right) && BODILESS.has(value)) continue;
        assert.ok(!acceptable, `byte ${at} may not be ${value}`);
      }
      whole[at] = right;
    }
  });
}

test("bytes at random behind a good header are a frame or refused", () => {
  const random = new SeededRandom(1);
  for (let round = 0; round < 20000; round += 1) {
    const body = Buffer.from(
      Array.from({ length: random.below(64) }, () => (random.chance(0.6) ? 0 : random.below(256))),
    );
    const bytes = Buffer.concat([encodeFrame({ kind: "done" }, expect), body]);
    bytes[0] = 1 + random.below(8);
    bytes.writeUInt32BE(body.length, 12);
    accepted(bytes);
  }
});

test("no length a peer announces is allocated", () => {
  const request = encodeFrame({ kind: "request", pages: [1] }, expect);
  const before = process.memoryUsage().arrayBuffers;
  for (const [offset, hex] of [
    [16, "ffff"],
    [12, "7fffffff"],
  ] as const) {
    const bytes = Buffer.from(request);
    bytes.set(Buffer.from(hex, "hex"), offset);
    for (let round = 0; round < 100; round += 1) assert.ok(!accepted(bytes));
  }
  const data = Buffer.from("ffffffff00ffff", "hex");
  const lz4 = encodeFrame(
    { kind: "pages", runs: [{ firstPage: 0, pageCount: 2, encoding: "lz4", origin: "push", data }] },
    expect,
  );
  for (let round = 0; round < 100; round += 1) assert.ok(!accepted(lz4));
  assert.ok(process.memoryUsage().arrayBuffers - before < 16 * 1024 * 1024);
});
