import { assert } from "../base/index.js";

/** A run of pages: the index of the first (in units of 4 KiB from the start of guest memory) and how many. */
export interface PageRange {
  first: number;
  count: number;
}

/** States that a range is not empty and lies inside the memory. */
export function assertRange(range: PageRange, pageCount: number): void {
  const { first, count } = range;
  assert(
    Number.isSafeInteger(first) && Number.isSafeInteger(count),
    `pages ${first}+${count} are not whole numbers`,
  );
  assert(
    first >= 0 && count > 0 && first + count <= pageCount,
    `pages ${first}+${count} lie outside 0..${pageCount}`,
  );
}
