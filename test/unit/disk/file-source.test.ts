import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { FileSource } from "../../../src/disk/index.js";
import { sampleDisk } from "../../support/block-sources.js";
import { findDataByReading as findData } from "../../support/find-data.js";

const directory = mkdtempSync(join(tmpdir(), "ramet-source-"));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, "disk");

test("a file is read where it is asked for, and its holes are told in order", async () => {
  const bytes = Buffer.concat([sampleDisk(30), Buffer.from("tail")]);
  writeFileSync(path, bytes);
  const source = await FileSource.open(path, findData);
  assert.equal(source.sizeBytes, bytes.length);
  assert.ok((await source.read(5000, 9000)).equals(bytes.subarray(5000, 14_000)));
  const extents = await source.extents(100, bytes.length - 100);
  let at = 100;
  for (const { lengthBytes, hole } of extents) {
    const piece = bytes.subarray(at, at + lengthBytes);
    assert.equal(
      piece.every((byte) => byte === 0),
      hole,
    );
    at += lengthBytes;
  }
  assert.equal(at, bytes.length);
  assert.deepEqual(await source.extents(8192, 100), [{ lengthBytes: 100, hole: true }]);
  await source.close();
});

test("a file with more extents than are found at once tells the first of them", async () => {
  const bytes = sampleDisk(1200);
  writeFileSync(path, bytes);
  const source = await FileSource.open(path, findData);
  const extents = await source.extents(0, bytes.length);
  assert.ok(extents.length >= 256 && extents.length < 400);
  await source.close();
});

test("a file that is not there, is empty or has become shorter is an error by name", async () => {
  await assert.rejects(FileSource.open(join(directory, "none"), findData), { code: "bad-image" });
  writeFileSync(path, "");
  await assert.rejects(FileSource.open(path, findData), { code: "bad-image" });
  writeFileSync(path, Buffer.alloc(8192));
  const source = await FileSource.open(path, findData);
  writeFileSync(path, Buffer.alloc(100));
  await assert.rejects(source.read(0, 8192), { code: "bad-image" });
  await source.close();
});
