import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf, realClock } from "../../../src/base/index.js";
import { digestFile, type Extent } from "../../../src/disk/index.js";
import { MIB, withDirectory } from "../../support/images.js";

/** A disk of 16 MiB with these pieces of data. */
async function withDisk(pieces: Extent[], body: (path: string) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    const path = join(directory, "disk");
    const file = await open(path, "w");
    await file.truncate(16 * MIB);
    for (const { start, end } of pieces)
      await file.write(Buffer.alloc(end - start, 0x5a), 0, end - start, start);
    await file.close();
    await body(path);
  });
}

const everything = (_: number, offset: number): Extent => ({ start: offset, end: 16 * MIB });

test("a disk's digest is the same however much of its holes is found, and the kernel is asked once for each extent", async () => {
  const pieces = [
    { start: 512, end: 1024 },
    { start: 2 * MIB - 512, end: 2 * MIB + 512 },
    { start: 2 * MIB + 8192, end: 2 * MIB + 16_384 },
    { start: 5 * MIB, end: 11 * MIB + 512 },
  ];
  await withDisk(pieces, async (path) => {
    let asked = 0;
    const exactly = (_: number, offset: number): Extent | undefined => {
      asked += 1;
      const next = pieces.find(({ end }) => end > offset);
      return next && { start: Math.max(next.start, offset), end: next.end };
    };
    const read: number[] = [];
    const exact = await digestFile(path, {
      clock: realClock,
      findData: exactly,
      onProgress: (doneBytes) => read.push(doneBytes / MIB),
    });
    const whole = await digestFile(path, { clock: realClock, findData: everything });
    assert.equal(exact.digest, whole.digest);
    // The chunks with data, and the end.
    assert.deepEqual(read, [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 16]);
    assert.ok(asked <= pieces.length + 1, `asked ${asked} times`);
  });
});

test("digesting ends when it is cancelled, and when the file becomes shorter", async () => {
  await withDisk([{ start: 0, end: 16 * MIB }], async (path) => {
    const cancelling = new AbortController();
    const onProgress = (doneBytes: number): void => {
      if (doneBytes === 4 * MIB) cancelling.abort();
    };
    const cancelled = digestFile(path, {
      clock: realClock,
      findData: everything,
      onProgress,
      signal: cancelling.signal,
    });
    await assert.rejects(cancelled, (error: unknown) => codeOf(error) === "cancelled");
    const file = await open(path, "r+");
    const shortened = digestFile(path, {
      clock: realClock,
      findData: everything,
      onProgress: (doneBytes) => {
        if (doneBytes === MIB) void file.truncate(2 * MIB);
      },
    });
    await assert.rejects(shortened, (error: unknown) => codeOf(error) === "bad-image");
    await file.close();
  });
});
