import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bytesOf } from "../../../proto/vectors/bytes.js";
import type { BlockRefusedVector, BlockVector } from "../../../proto/vectors/schema.js";
import * as base from "../../../src/base/index.js";
import {
  BLOCK_FRAME_KIND,
  decodeBlockFrame,
  decodeFrame,
  encodeBlockFrame,
  FRAME_KIND,
  packContent,
  unpackContent,
  WireError,
  type BlockFrame,
} from "../../../src/wire/index.js";

const at = { transfer: 7, sequence: 1 };
const read = (path: string) => readFileSync(new URL(`../../../proto/${path}`, import.meta.url), "utf8");
const document = read("BLOCKS.md");
const vectors = JSON.parse(read("vectors/v1/blocks.json")) as {
  frames: BlockVector[];
  refused: BlockRefusedVector[];
};

const isCode = (code: string) => (error: unknown) => error instanceof WireError && error.code === code;

for (const vector of vectors.frames) {
  test(`vector: ${vector.name}`, () => {
    const bytes = bytesOf(vector.bytes);
    const frame = decodeBlockFrame(bytes, vector);
    if (frame.kind === "content" && vector.frame.kind === "content") {
      const content = bytesOf(vector.frame.content);
      assert.deepEqual(unpackContent(frame, content.length), Buffer.from(content));
      assert.deepEqual(
        frame.runs.map(({ encoding }) => encoding),
        vector.frame.encodings,
      );
      assert.equal(frame.request, vector.frame.request);
      const runs = packContent(Buffer.from(content), { compress: false });
      const again: BlockFrame = { kind: "content", request: frame.request, runs };
      if (vector.encode) assert.deepEqual(encodeBlockFrame(again, vector), Buffer.from(bytes));
    } else {
      assert.deepEqual(frame, vector.frame);
      assert.deepEqual(encodeBlockFrame(frame, vector), Buffer.from(bytes));
    }
  });
}

for (const vector of vectors.refused) {
  test(`vector: refused, ${vector.name}`, () => {
    assert.throws(() => decodeBlockFrame(bytesOf(vector.bytes), vector), isCode(vector.error));
  });
}

test("the limits and kinds of BLOCKS.md are those of the code", () => {
  const constants: Record<string, unknown> = { ...base };
  const limits = [...document.matchAll(/^\| [^|]+ \| (\d+) \| `(\w+)` \|$/gmu)];
  assert.equal(limits.length, 9);
  for (const [, value, name] of limits) assert.equal(constants[name as string], Number(value), name);
  const kinds = [...document.matchAll(/^\| (\d+) \| `(\w+)` \|/gmu)];
  assert.deepEqual(
    Object.fromEntries(kinds.map(([, value, name]) => [name, Number(value)])),
    BLOCK_FRAME_KIND,
  );
});

test("no kind of a block lane is one of a page lane", () => {
  const pages = new Set<number>(Object.values(FRAME_KIND));
  for (const kind of Object.values(BLOCK_FRAME_KIND)) assert.ok(!pages.has(kind));
  const frame = encodeBlockFrame({ kind: "map", request: 1, disk: 0, offset: 0, lengthBytes: 1 }, at);
  assert.throws(() => decodeFrame(frame, { ...at, pageCount: 1 }), isCode("unknown-kind"));
});

test("content comes back, compressed or not, and only as long as it was asked for", () => {
  const bytes = Buffer.concat([Buffer.alloc(70_000, "text "), Buffer.alloc(200_000), Buffer.from([1])]);
  for (const compress of [true, false]) {
    const runs = packContent(bytes, { compress });
    assert.ok(runs.some(({ encoding }) => encoding === "zero"));
    assert.equal(
      runs.some(({ encoding }) => encoding === "lz4"),
      compress,
    );
    const encoded = encodeBlockFrame({ kind: "content", request: 1, runs }, at);
    const frame = decodeBlockFrame(encoded, { ...at, sizes: [] });
    assert.ok(frame.kind === "content");
    assert.ok(unpackContent(frame, bytes.length).equals(bytes));
    assert.throws(() => unpackContent(frame, bytes.length + 1), isCode("bad-run"));
  }
});

test("compressed content that is none is refused", () => {
  const runs = [
    { encoding: "lz4" as const, lengthBytes: 4096, data: Buffer.from("00100000ff00ff00", "hex") },
  ];
  assert.throws(() => unpackContent({ kind: "content", request: 1, runs }, 4096), isCode("bad-lz4"));
});

test("a frame cut at any byte, or longer by one, is refused, with or without a length to match", () => {
  for (const vector of vectors.frames) {
    const whole = Buffer.from(bytesOf(vector.bytes));
    for (let length = 0; length < Math.min(whole.length, 200); length += 1) {
      const cut = Buffer.from(whole.subarray(0, length));
      assert.throws(() => decodeBlockFrame(cut, vector), WireError);
      if (length < 16) continue;
      cut.writeUInt32BE(length - 16, 12);
      assert.throws(() => decodeBlockFrame(cut, vector), WireError);
    }
    assert.throws(() => decodeBlockFrame(Buffer.concat([whole, Buffer.alloc(1)]), vector), WireError);
  }
});

test("a failure this version does not know is one all the same", () => {
  const frame = encodeBlockFrame({ kind: "failed", request: 3, failure: "gone", message: "m" }, at);
  frame.writeUInt16BE(77, 20);
  assert.deepEqual(decodeBlockFrame(frame, { ...at, sizes: [] }), {
    kind: "failed",
    request: 3,
    failure: "unreadable",
    message: "m",
  });
});
