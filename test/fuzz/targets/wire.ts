import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { bytesOf } from "../../../proto/vectors/bytes.js";
import type { FrameVector, RefusedVector } from "../../../proto/vectors/schema.js";
import { MAX_RUN_PAGES, PAGE_BYTES } from "../../../src/base/index.js";
import {
  decodeFrame,
  encodeFrame,
  frameBytes,
  packRun,
  unpackRun,
  WireError,
  type Frame,
  type PageRun,
} from "../../../src/wire/index.js";
import { orRefusal, type Target } from "../engine/target.js";
import { decodeBlock } from "./lz4-reference.js";

/** Where every vector's frame stands. */
const AT = { transfer: 0x01020304, sequence: 5 };
const EXPECT = { ...AT, pageCount: 1000 };

const HEADER_BYTES = 16;
/** Of the errors and views of one frame. */
const SMALL_BYTES = 256 * 1024;

function readVectors<Vector>(name: string): Vector[] {
  const url = new URL(`../../../proto/vectors/v1/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Vector[];
}

function* frameSeeds(): Iterable<Uint8Array> {
  for (const { bytes } of readVectors<FrameVector>("frames")) yield bytesOf(bytes);
  for (const { bytes } of readVectors<RefusedVector>("refused")) yield bytesOf(bytes);
  const page = Buffer.alloc(PAGE_BYTES, "page");
  const runs = [3, 4].map((firstPage) =>
    packRun({ firstPage, origin: "sweep", bytes: page, compress: true }),
  );
  yield encodeFrame({ kind: "pages", runs }, AT);
}

/** Unpacks as the child does, and compares with a decoder of our own. */
function checkRun(run: PageRun): string {
  if (run.encoding === "zero") return "zero";
  const sizeBytes = run.pageCount * PAGE_BYTES;
  assert.ok(run.pageCount <= MAX_RUN_PAGES);
  const wanted =
    run.encoding === "lz4" && Buffer.from(run.data).readUInt32LE(0) === sizeBytes
      ? decodeBlock(run.data.subarray(4), sizeBytes)
      : run.data;
  return orRefusal(WireError, () => {
    const content = unpackRun(run);
    assert.equal(content.length, sizeBytes);
    assert.ok(wanted !== undefined && Buffer.compare(content, wanted) === 0, "LZ4 decoded otherwise");
    return run.encoding;
  });
}

function checkFrame(frame: Frame): string {
  if (frame.kind !== "pages") return frame.kind;
  for (const run of frame.runs) assert.ok(run.firstPage + run.pageCount <= EXPECT.pageCount);
  return `pages ${[...new Set(frame.runs.slice(0, 4).map(checkRun))].sort().join(" ")}`;
}

/** Frames as a peer sends them on a page lane. */
export const wireFrame: Target = {
  name: "wire-frame",
  covers: ["src/wire/"],
  format: "bytes",
  maxInputBytes: 24 * 1024,
  seeds: frameSeeds,
  // The four runs looked at may each be unpacked twice, once here.
  allocationBytes: (inputBytes) => SMALL_BYTES + inputBytes * 8 + 4 * 3 * MAX_RUN_PAGES * PAGE_BYTES,
  repair(input, random) {
    if (input.length < HEADER_BYTES) return input;
    input.writeUInt32BE(input.length - HEADER_BYTES, 12);
    if (random.chance(0.9)) encodeFrame({ kind: "done" }, AT).copy(input, 2, 2, 12);
    return input;
  },
  run: (input) =>
    orRefusal(WireError, () => {
      const frame = decodeFrame(input, EXPECT);
      assert.equal(frameBytes(frame), input.length);
      assert.deepEqual(encodeFrame(frame, AT), input, "a frame decoded and encoded is the same frame");
      return checkFrame(frame);
    }),
};

function* blockSeeds(): Iterable<Uint8Array> {
  for (const pages of [1, 2, 16, 64]) {
    for (const text of ["a", "ramet ", "some text that repeats itself"]) {
      yield packRun({
        firstPage: 0,
        origin: "sweep",
        bytes: Buffer.alloc(pages * PAGE_BYTES, text),
        compress: true,
      }).data;
    }
  }
  const noise = Buffer.from(Array.from({ length: PAGE_BYTES }, (_, index) => (index * index) >> 3));
  noise.fill(0, 1000, 3000);
  yield packRun({ firstPage: 0, origin: "sweep", bytes: noise, compress: true }).data;
}

/** The data of a compressed run: prefix and LZ4 block. */
export const wireLz4: Target = {
  name: "wire-lz4",
  covers: ["src/wire/lz4.ts", "test/fuzz/targets/lz4-reference.ts"],
  format: "bytes",
  maxInputBytes: 8 * 1024,
  seeds: blockSeeds,
  allocationBytes: (inputBytes) => SMALL_BYTES + inputBytes + 3 * MAX_RUN_PAGES * PAGE_BYTES,
  repair(input, random) {
    if (input.length < 4) return input;
    const pages = random.chance(0.8) ? 1 + (input.readUInt32LE(0) % 4) : random.below(MAX_RUN_PAGES + 1);
    input.writeUInt32LE(pages * PAGE_BYTES, 0);
    return input;
  },
  run(input) {
    const announced = input.length < 4 ? 0 : input.readUInt32LE(0);
    const pageCount = Math.min(MAX_RUN_PAGES, Math.max(1, Math.ceil(announced / PAGE_BYTES)));
    const run: PageRun = { firstPage: 0, pageCount, encoding: "lz4", origin: "fault", data: input };
    // Also of what the library refuses: this one is instrumented, and so guides the mutations.
    const wanted = decodeBlock(input.subarray(4), pageCount * PAGE_BYTES);
    return orRefusal(WireError, () => {
      const content = unpackRun(run);
      assert.ok(wanted !== undefined, "LZ4 accepted a block that is malformed, or of another length");
      assert.ok(Buffer.compare(content, wanted) === 0, "LZ4 decoded otherwise");
      return "content";
    });
  },
};
