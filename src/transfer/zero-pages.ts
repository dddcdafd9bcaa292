import { PAGE_BYTES } from "../base/index.js";
import type { PageRange } from "./ports.js";

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** Splits whole pages into ranges that are all zero or not zero at all; `first` counts from the start of `bytes`. */
export function splitZeroPages(bytes: Uint8Array): PageRange[] {
  const ranges: PageRange[] = [];
  let last: PageRange | undefined;
  let lastZero = false;
  for (let page = 0; page * PAGE_BYTES < bytes.length; page += 1) {
    const start = page * PAGE_BYTES;
    const zero = mayBeZero(bytes, start) && ZERO_PAGE.compare(bytes, start, start + PAGE_BYTES) === 0;
    if (last !== undefined && zero === lastZero) last.count += 1;
    else ranges.push((last = { first: page, count: 1 }));
    lastZero = zero;
  }
  return ranges;
}

/** Looks at a few bytes of a page first, which settles nearly all: the comparison is a call out of JavaScript that takes ten times as long. */
function mayBeZero(bytes: Uint8Array, start: number): boolean {
  return (
    bytes[start] === 0 && bytes[start + 8] === 0 && bytes[start + 2048] === 0 && bytes[start + 4088] === 0
  );
}
