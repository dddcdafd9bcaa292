import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bytesOf } from "../../../proto/vectors/bytes.js";
import type { FrameVector, RefusedVector, VectorFrame } from "../../../proto/vectors/schema.js";
import { decodeFrame, encodeFrame, unpackRun, WireError, type Frame } from "../../../src/wire/index.js";

function read<Vector>(name: string): Vector[] {
  const url = new URL(`../../../proto/vectors/v1/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Vector[];
}

/** A decoded frame in the vectors' terms: what is in the pages, not how it was written. */
function contentOf(frame: Frame): unknown {
  if (frame.kind === "hashes") return { ...frame, digests: Buffer.from(frame.digests) };
  if (frame.kind !== "pages") return frame;
  const runs = frame.runs.map(({ data, ...run }) => ({
    ...run,
    content: run.encoding === "zero" ? Buffer.alloc(0) : Buffer.from(unpackRun({ ...run, data })),
  }));
  return { kind: "pages", runs };
}

function contentOfVector(frame: VectorFrame): unknown {
  if (frame.kind === "hashes") return { ...frame, digests: bytesOf(frame.digests) };
  if (frame.kind !== "pages") return frame;
  return { kind: "pages", runs: frame.runs.map((run) => ({ ...run, content: bytesOf(run.content) })) };
}

/** The frame to be encoded; none of these vectors holds compressed pages. */
function toFrame(frame: VectorFrame): Frame {
  if (frame.kind === "hashes") return { ...frame, digests: bytesOf(frame.digests) };
  if (frame.kind !== "pages") return frame;
  const runs = frame.runs.map(({ content, ...run }) => ({ ...run, data: bytesOf(content) }));
  return { kind: "pages", runs };
}

for (const vector of read<FrameVector>("frames")) {
  test(`vector: ${vector.name}`, () => {
    const bytes = bytesOf(vector.bytes);
    assert.deepEqual(contentOf(decodeFrame(bytes, vector)), contentOfVector(vector.frame));
    if (vector.encode) assert.deepEqual(encodeFrame(toFrame(vector.frame), vector), bytes);
  });
}

for (const vector of read<RefusedVector>("refused")) {
  test(`vector: refused, ${vector.name}`, () => {
    assert.throws(
      () => decodeFrame(bytesOf(vector.bytes), vector),
      (error) => error instanceof WireError && error.code === vector.error,
    );
  });
}
