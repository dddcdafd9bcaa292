import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bytesOf } from "../../../proto/vectors/bytes.js";
import type { DiskVector } from "../../../proto/vectors/schema.js";
import { realClock } from "../../../src/base/index.js";
import {
  CHUNK_BYTES,
  CHUNK_DIGEST_BYTES,
  chunkLength,
  ContentBuilder,
  digestFile,
  type Content,
} from "../../../src/disk/index.js";

const url = new URL("../../../proto/vectors/v1/disks.json", import.meta.url);
const vectors = JSON.parse(readFileSync(url, "utf8")) as DiskVector[];

/** Those that are written to a file, all of them data. */
const MAX_FILE_BYTES = 8 * 1024 * 1024;

/** The chunks with anything in them, by number. */
function chunksOf(vector: DiskVector): Map<number, Buffer> {
  const chunks = new Map<number, Buffer>();
  for (const { offset, bytes } of vector.data) {
    for (const [at, byte] of bytesOf(bytes).entries()) {
      const index = Math.floor((offset + at) / CHUNK_BYTES);
      const chunk = chunks.get(index) ?? Buffer.alloc(chunkLength(index, vector.sizeBytes));
      chunk[(offset + at) % CHUNK_BYTES] = byte;
      chunks.set(index, chunk);
    }
  }
  return chunks;
}

function hold(content: Content, vector: DiskVector): void {
  assert.equal(content.digest, vector.digest);
  assert.equal(content.sizeBytes, vector.sizeBytes);
  const expected = Buffer.alloc(content.chunks.length);
  for (const { index, digest } of vector.chunks)
    expected.set(Buffer.from(digest, "hex"), index * CHUNK_DIGEST_BYTES);
  assert.ok(expected.equals(content.chunks), "the chunks' digests are those of the vector");
}

for (const vector of vectors) {
  test(`vector: ${vector.name}, chunk by chunk, the last one first`, async () => {
    const builder = new ContentBuilder(vector.sizeBytes);
    for (const [index, bytes] of [...chunksOf(vector)].reverse()) await builder.put(index, bytes);
    hold(await builder.finish(realClock), vector);
  });
}

for (const vector of vectors.filter(({ sizeBytes }) => sizeBytes <= MAX_FILE_BYTES)) {
  test(`vector: ${vector.name}, as a file`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "ramet-disk-"));
    try {
      const path = join(directory, "disk");
      const file = await open(path, "wx");
      await file.truncate(vector.sizeBytes);
      for (const { offset, bytes } of vector.data) await file.write(bytesOf(bytes), 0, undefined, offset);
      await file.close();
      const progress: number[] = [];
      const findData = (_: number, offset: number) => ({ start: offset, end: vector.sizeBytes });
      const content = await digestFile(path, {
        clock: realClock,
        findData,
        onProgress: (doneBytes) => progress.push(doneBytes),
      });
      hold(content, vector);
      assert.equal(progress.at(-1), vector.sizeBytes);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
}
