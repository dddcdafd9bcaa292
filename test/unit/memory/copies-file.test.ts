import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, before, beforeEach, describe, it } from "node:test";
import { PAGE_BYTES } from "../../../src/base/index.js";
import { CopiesFile, MemoryError } from "../../../src/memory/index.js";
import { allocatedBytes, buildNative } from "../../support/memory-stand-in.js";

const PAGE_COUNT = 64;
const page = (value: number): Buffer => Buffer.alloc(PAGE_BYTES, value);
const badFile = (thrown: unknown): boolean => thrown instanceof MemoryError && thrown.code === "bad-file";

describe("a file of copies", () => {
  let directory: string;
  let path: string;
  before(() => buildNative());
  beforeEach(() => {
    directory = mkdtempSync(join("/dev/shm", "ramet-copies-"));
    path = join(directory, "copies");
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it("keeps pages, gives them back, and forgets those that are dropped with their room", () => {
    const copies = CopiesFile.create(path, PAGE_COUNT);
    for (const kept of [0, 7, 8, 63]) assert.equal(copies.write(kept, page(kept + 1)), true);
    const into = Buffer.alloc(PAGE_BYTES);
    copies.read(8, into);
    assert.deepEqual(into, page(9));
    copies.drop({ first: 0, count: 8 });
    assert.deepEqual(
      [...copies.pages()],
      [
        { first: 8, count: 1 },
        { first: 63, count: 1 },
      ],
    );
    assert.equal(allocatedBytes(path), 2 * PAGE_BYTES);
    copies.remove();
    copies.remove();
    assert.throws(() => CopiesFile.open(path, PAGE_COUNT), badFile);
  });

  it("outlives who wrote it, and is empty when it is made anew", () => {
    const before = CopiesFile.create(path, PAGE_COUNT);
    before.write(3, page(3));
    before.close();
    const after = CopiesFile.open(path, PAGE_COUNT);
    assert.deepEqual([...after.pages()], [{ first: 3, count: 1 }]);
    after.close();
    const anew = CopiesFile.create(path, PAGE_COUNT);
    assert.deepEqual([...anew.pages()], []);
    anew.close();
  });

  it("is not opened for another number of pages", () => {
    CopiesFile.create(path, PAGE_COUNT).close();
    assert.throws(() => CopiesFile.open(path, PAGE_COUNT + 1), badFile);
    truncateSync(path, 5);
    assert.throws(() => CopiesFile.open(path, PAGE_COUNT), badFile);
  });

  it("is not made where there is no directory", () => {
    assert.throws(() => CopiesFile.create(join(tmpdir(), "no-such-directory", "copies"), 1), badFile);
  });
});
