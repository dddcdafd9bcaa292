import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AssertionError,
  BULK_WINDOW_BYTES,
  MAX_FRAME_HASHES,
  MAX_FRAME_RUNS,
  MAX_MEMORY_PAGES,
  MAX_RECEIVED_RUNS,
  MAX_REQUEST_PAGES,
  MAX_RUN_PAGES,
  PAGE_BYTES,
} from "../../../src/base/index.js";
import {
  decodeFrame,
  encodeFrame,
  frameBytes,
  MAX_SEQUENCE,
  packRun,
  type Frame,
  type PageRun,
} from "../../../src/wire/index.js";

const at = { transfer: 0xffffffff, sequence: 1 };

function runs(count: number): PageRun[] {
  return Array.from({ length: count }, (_, index) => ({
    firstPage: index,
    pageCount: 1,
    encoding: "zero" as const,
    origin: "sweep" as const,
    data: new Uint8Array(0),
  }));
}

function ranges(count: number): { first: number; count: number }[] {
  return Array.from({ length: count }, (_, index) => ({ first: index, count: 1 }));
}

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);

/** The largest frame of each kind. */
const LARGEST: { [Kind in Frame["kind"]]: Extract<Frame, { kind: Kind }> } = {
  pages: { kind: "pages", runs: runs(MAX_FRAME_RUNS) },
  request: { kind: "request", pages: numbers(MAX_REQUEST_PAGES) },
  received: { kind: "received", creditBytes: BULK_WINDOW_BYTES, runs: ranges(MAX_RECEIVED_RUNS) },
  have: { kind: "have", last: false, runs: ranges(MAX_RECEIVED_RUNS) },
  hashes: { kind: "hashes", firstPage: 0, digests: Buffer.alloc(MAX_FRAME_HASHES * 16, 1) },
  done: { kind: "done" },
  relayed: { kind: "relayed", on: true },
};

for (const frame of Object.values(LARGEST)) {
  test(`the largest ${frame.kind} frame goes through`, () => {
    const bytes = encodeFrame(frame, at);
    assert.equal(bytes.length, frameBytes(frame));
    const decoded = decodeFrame(bytes, { ...at, pageCount: MAX_MEMORY_PAGES });
    assert.deepEqual(frame.kind === "pages" ? { ...decoded, runs: frame.runs } : decoded, frame);
  });
}

test("four runs of 64 raw pages do not fit in a frame, three do", () => {
  const bytes = Buffer.alloc(MAX_RUN_PAGES * PAGE_BYTES, 1);
  const run = packRun({ firstPage: 0, origin: "sweep", bytes, compress: false });
  assert.ok(encodeFrame({ kind: "pages", runs: [run, run, run] }, at).length > 3 * bytes.length);
  assert.throws(() => encodeFrame({ kind: "pages", runs: [run, run, run, run] }, at), AssertionError);
});

test("one more than the limit is our own mistake", () => {
  const tooLarge: Frame[] = [
    { kind: "pages", runs: runs(MAX_FRAME_RUNS + 1) },
    { kind: "pages", runs: [] },
    { kind: "request", pages: numbers(MAX_REQUEST_PAGES + 1) },
    { kind: "request", pages: [] },
    { kind: "received", creditBytes: BULK_WINDOW_BYTES + 1, runs: [] },
    { kind: "received", creditBytes: 0, runs: ranges(MAX_RECEIVED_RUNS + 1) },
    { kind: "received", creditBytes: 0, runs: [{ first: 0, count: 0 }] },
    { kind: "have", last: true, runs: ranges(MAX_RECEIVED_RUNS + 1) },
    { kind: "hashes", firstPage: 0, digests: new Uint8Array(0) },
    { kind: "hashes", firstPage: 0, digests: new Uint8Array(17) },
    { kind: "hashes", firstPage: 0, digests: new Uint8Array((MAX_FRAME_HASHES + 1) * 16) },
  ];
  for (const frame of tooLarge) assert.throws(() => encodeFrame(frame, at), AssertionError);
});

test("sequences run from 1 to 2^48 - 1", () => {
  const done: Frame = { kind: "done" };
  const last = { transfer: 0, sequence: MAX_SEQUENCE };
  assert.deepEqual(decodeFrame(encodeFrame(done, last), { ...last, pageCount: 1 }), done);
  for (const sequence of [0, 1.5, MAX_SEQUENCE + 1]) {
    assert.throws(() => encodeFrame(done, { transfer: 0, sequence }), AssertionError);
  }
});

test("decoded pages and hashes are views of the frame", () => {
  const content = Buffer.alloc(PAGE_BYTES, 7);
  const run = packRun({ firstPage: 0, origin: "fault", bytes: content, compress: false });
  const bytes = encodeFrame({ kind: "pages", runs: [run] }, at);
  const pages = decodeFrame(bytes, { ...at, pageCount: 1 });
  assert.ok(pages.kind === "pages" && pages.runs[0]?.data.buffer === bytes.buffer);
  const hashBytes = encodeFrame(LARGEST.hashes, at);
  const hashes = decodeFrame(hashBytes, { ...at, pageCount: MAX_MEMORY_PAGES });
  assert.ok(hashes.kind === "hashes" && hashes.digests.buffer === hashBytes.buffer);
});

test("a frame inside a larger buffer is read like any other", () => {
  const frame = encodeFrame({ kind: "request", pages: [3] }, at);
  const around = new Uint8Array(frame.length + 20);
  around.set(frame, 11);
  const bytes = around.subarray(11, 11 + frame.length);
  assert.deepEqual(decodeFrame(bytes, { ...at, pageCount: 4 }), { kind: "request", pages: [3] });
});
