import assert from "node:assert/strict";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { afterEach, before, beforeEach, describe, it } from "node:test";
import { AssertionError, PAGE_BYTES } from "../../../src/base/index.js";
import { EndedRegion, MemoryError, RamFile } from "../../../src/memory/index.js";
import { allocatedBytes, buildNative, createRamFile } from "../../support/memory-stand-in.js";

const PAGE_COUNT = 16;
const page = (value: number): Buffer => Buffer.alloc(PAGE_BYTES, value);
const badFile = (thrown: unknown): boolean => thrown instanceof MemoryError && thrown.code === "bad-file";

describe("a memory file", () => {
  let path: string;
  before(() => buildNative());
  beforeEach(() => {
    path = createRamFile(PAGE_COUNT);
  });
  afterEach(() => rmSync(path));

  it("is read in ranges, and reading holes allocates nothing", () => {
    const file = RamFile.open(path);
    const bytes = Buffer.alloc(PAGE_COUNT * PAGE_BYTES, 1);
    file.read({ first: 0, count: PAGE_COUNT }, bytes);
    assert.deepEqual(bytes, Buffer.alloc(PAGE_COUNT * PAGE_BYTES));
    assert.equal(allocatedBytes(path), 0);
    writeFileSync(path, Buffer.concat([page(1), page(2), page(3)]), { flag: "r+" });
    file.read({ first: 1, count: 3 }, bytes);
    assert.deepEqual(bytes.subarray(0, 4 * PAGE_BYTES), Buffer.concat([page(2), page(3), page(0), page(0)]));
    file.close();
  });

  it("tells data from holes", () => {
    const file = RamFile.open(path);
    assert.equal(file.nextData(0), undefined);
    writeFileSync(path, page(1), { flag: "r+" });
    assert.deepEqual(file.nextData(0), { first: 0, count: 1 });
    assert.equal(file.nextData(1), undefined);
    assert.equal(file.nextData(PAGE_COUNT), undefined);
    file.close();
  });

  it("of an emulator that has ended is read as it was left, and nothing of it is held up", () => {
    assert.throws(() => EndedRegion.open(`${path}.none`), badFile);
    writeFileSync(path, page(7), { flag: "r+" });
    const region = EndedRegion.open(path);
    const bytes = Buffer.alloc(2 * PAGE_BYTES, 1);
    region.read({ first: 0, count: 2 }, bytes);
    assert.deepEqual(bytes, Buffer.concat([page(7), page(0)]));
    assert.deepEqual(region.nextData(0), { first: 0, count: 1 });
    assert.deepEqual([region.pageCount, region.protectedPages().count], [PAGE_COUNT, 0]);
    region.close();
    region.close();
    assert.throws(() => region.read({ first: 0, count: 1 }, bytes), { code: "gone" });
  });

  it("must exist, hold whole pages, and stay as long as it was", () => {
    assert.throws(() => RamFile.open(`${path}.none`), badFile);
    const file = RamFile.open(path);
    truncateSync(path, PAGE_BYTES + 1);
    assert.throws(() => RamFile.open(path), badFile);
    assert.throws(() => file.read({ first: 1, count: 1 }, page(0)), badFile);
    truncateSync(path, 0);
    assert.throws(() => RamFile.open(path), badFile);
    file.close();
  });

  it("is not read once it is closed: another file may have its descriptor's number by then", () => {
    const file = RamFile.open(path);
    file.close();
    file.close();
    const gone = (thrown: unknown): boolean => thrown instanceof MemoryError && thrown.code === "gone";
    assert.throws(() => file.read({ first: 0, count: 1 }, page(0)), gone);
    assert.throws(() => file.nextData(0), gone);
  });

  it("is never asked for what lies outside it", () => {
    const file = RamFile.open(path);
    for (const [first, count] of [
      [-1, 1],
      [0, 0],
      [0, PAGE_COUNT + 1],
      [PAGE_COUNT, 1],
      [0.5, 1],
    ] as const) {
      assert.throws(() => file.read({ first, count }, Buffer.alloc(PAGE_BYTES)), AssertionError);
    }
    assert.throws(() => file.read({ first: 0, count: 2 }, Buffer.alloc(PAGE_BYTES)), AssertionError);
    file.close();
  });
});
