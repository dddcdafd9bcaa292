import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_WRITER_RUN_PAGES, writerRun } from "../../../src/transfer/writer-run.js";

/** Lets a writer through page after page, as an instant does; returns where it had to wait. */
function waitsOf(
  pages: readonly number[],
  options: { pageCount: number; kept?: ReadonlySet<number> },
): number[] {
  const isProtected = new Array<boolean>(options.pageCount).fill(true);
  const waits: number[] = [];
  for (const page of pages) {
    if (isProtected[page] !== true) continue;
    waits.push(page);
    const { first, count } = writerRun(page, {
      pageCount: options.pageCount,
      isProtected: (other) => isProtected[other] === true,
      mayJoin: (other) => isProtected[other] === true && options.kept?.has(other) !== true,
    });
    assert.equal(first, page);
    assert.ok(count >= 1 && count <= MAX_WRITER_RUN_PAGES && first + count <= options.pageCount);
    for (let next = first; next < first + count; next += 1) {
      assert.ok(next === page || options.kept?.has(next) !== true, "what may not join does not");
      isProtected[next] = false;
    }
  }
  return waits;
}

test("a writer that goes through memory in order waits for runs that grow", () => {
  const inOrder = Array.from({ length: 100 }, (_, index) => index);
  assert.deepEqual(waitsOf(inOrder, { pageCount: 100 }), [0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96]);
  const kept = new Set([5, 20]);
  const waits = waitsOf(inOrder, { pageCount: 100, kept });
  for (const page of kept) assert.ok(waits.includes(page));
});

test("one that jumps about, or goes backwards, is let through page by page", () => {
  const apart = Array.from({ length: 50 }, (_, index) => 2 * ((index * 7) % 50));
  assert.deepEqual(waitsOf(apart, { pageCount: 100 }), apart);
  const backwards = Array.from({ length: 50 }, (_, index) => 99 - index);
  assert.deepEqual(waitsOf(backwards, { pageCount: 100 }), backwards);
});
