import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { compressSync } from "lz4-napi";
import { AssertionError, MAX_RUN_PAGES, PAGE_BYTES } from "../../../src/base/index.js";
import { isZero, packRun, unpackRun, WireError, type PageRun } from "../../../src/wire/index.js";

const pack = (bytes: Uint8Array, compress: boolean) =>
  packRun({ firstPage: 5, origin: "push", bytes, compress });

test("zero pages have no data, however many", () => {
  for (const pages of [1, 16, MAX_RUN_PAGES]) {
    const run = pack(new Uint8Array(pages * PAGE_BYTES), true);
    const data = new Uint8Array(0);
    assert.deepEqual(run, { firstPage: 5, pageCount: pages, encoding: "zero", origin: "push", data });
  }
});

test("a single byte anywhere makes a page not zero", () => {
  for (const at of [0, 1, 4095, 4096, 8191]) {
    const bytes = new Uint8Array(2 * PAGE_BYTES);
    assert.equal(isZero(bytes), true);
    bytes[at] = 1;
    assert.equal(isZero(bytes), false);
    assert.notEqual(pack(bytes, true).encoding, "zero");
  }
});

test("what compresses is compressed when asked for", () => {
  for (const pages of [1, 16, MAX_RUN_PAGES]) {
    const bytes = Buffer.alloc(pages * PAGE_BYTES, "some text that repeats ");
    const run = pack(bytes, true);
    assert.equal(run.encoding, "lz4");
    assert.ok(run.data.length < bytes.length / 8);
    assert.deepEqual(unpackRun(run), bytes);
    assert.equal(pack(bytes, false).encoding, "raw");
  }
});

test("LZ4 is used only when it saves an eighth", () => {
  const bytes = Buffer.concat([randomBytes(3840), Buffer.alloc(256, 1)]);
  assert.ok(compressSync(bytes).length < PAGE_BYTES);
  assert.equal(pack(bytes, true).encoding, "raw");
  assert.equal(pack(randomBytes(PAGE_BYTES), true).encoding, "raw");
});

test("of many pages the whole is compressed only where the first or the middle one becomes less", () => {
  const text = Buffer.alloc(PAGE_BYTES, "some text that repeats ");
  const noise = randomBytes(PAGE_BYTES);
  const mixed = (textAt: (page: number) => boolean) =>
    Buffer.concat(Array.from({ length: MAX_RUN_PAGES }, (_, page) => (textAt(page) ? text : noise)));
  assert.equal(
    pack(
      mixed((page) => page < 32),
      true,
    ).encoding,
    "lz4",
  );
  assert.equal(
    pack(
      mixed((page) => page >= 32),
      true,
    ).encoding,
    "lz4",
  );
  assert.equal(
    pack(
      mixed((page) => page % 32 !== 0),
      true,
    ).encoding,
    "raw",
    "what becomes less is not looked for",
  );
});

test("a raw run is a view, not a copy", () => {
  const bytes = randomBytes(PAGE_BYTES);
  const run = pack(bytes, false);
  assert.equal(run.data, bytes);
  assert.equal(unpackRun(run), bytes);
});

test("bytes that are no whole pages, and zero runs to unpack, are our own mistake", () => {
  for (const sizeBytes of [0, 1, PAGE_BYTES + 1, (MAX_RUN_PAGES + 1) * PAGE_BYTES]) {
    assert.throws(() => pack(new Uint8Array(sizeBytes), true), AssertionError);
  }
  assert.throws(() => unpackRun(pack(new Uint8Array(PAGE_BYTES), true)), AssertionError);
});

test("LZ4 data start with the content's length, little endian, and are refused when it is wrong", () => {
  const good = compressSync(Buffer.alloc(PAGE_BYTES, "abc"));
  assert.equal(good.readUInt32LE(0), PAGE_BYTES);
  const behindPrefix = (block: Buffer) => Buffer.concat([good.subarray(0, 4), block]);
  const bad: [string, Buffer][] = [
    ["nothing", Buffer.alloc(0)],
    ["a prefix alone", good.subarray(0, 4)],
    ["4 GiB announced", Buffer.concat([Buffer.from("ffffffff", "hex"), good.subarray(4)])],
    ["a byte too few announced", Buffer.concat([Buffer.from("ff0f0000", "hex"), good.subarray(4)])],
    ["content that is shorter", behindPrefix(compressSync(Buffer.alloc(64)).subarray(4))],
    ["content that is longer", behindPrefix(compressSync(Buffer.alloc(8192)).subarray(4))],
    ["a block cut short", good.subarray(0, good.length - 1)],
    ["a reference to before the start", behindPrefix(Buffer.from("0f0100ff", "hex"))],
  ];
  for (const [name, data] of bad) {
    const run: PageRun = { firstPage: 0, pageCount: 1, encoding: "lz4", origin: "sweep", data };
    assert.throws(
      () => unpackRun(run),
      (error) => error instanceof WireError && error.code === "bad-lz4",
      name,
    );
  }
});
