import { PAGE_BYTES } from "../base/index.js";
import type { PageRange } from "./ports.js";

const ZERO_PAGE = new Uint8Array(PAGE_BYTES);

/** Splits whole pages into ranges that are all zero or not zero at all; `first` counts from the start of `bytes`. */
export function splitZeroPages(bytes: Uint8Array): PageRange[] {
  const ranges: PageRange[] = [];
  let lastZero: boolean | undefined;
  for (let page = 0; page * PAGE_BYTES < bytes.length; page += 1) {
    const zero = Buffer.compare(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), ZERO_PAGE) === 0;
    const last = ranges.at(-1);
    if (last !== undefined && zero === lastZero) last.count += 1;
    else ranges.push({ first: page, count: 1 });
    lastZero = zero;
  }
  return ranges;
}
