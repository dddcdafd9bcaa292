import type { PageRange } from "./ports.js";

/** Sorted ranges of a list of pages that may repeat. */
export function rangesOf(pages: readonly number[]): PageRange[] {
  const ranges: PageRange[] = [];
  let last: PageRange | undefined;
  for (const page of pages.toSorted((left, right) => left - right)) {
    if (last !== undefined && page < last.first + last.count) continue;
    if (last !== undefined && page === last.first + last.count) last.count += 1;
    else ranges.push((last = { first: page, count: 1 }));
  }
  return ranges;
}

/** Sorts ranges that do not overlap and joins those that touch. */
export function mergeRanges(ranges: readonly PageRange[]): PageRange[] {
  const merged: PageRange[] = [];
  for (const range of ranges.toSorted((left, right) => left.first - right.first)) {
    const last = merged.at(-1);
    if (last !== undefined && last.first + last.count === range.first) last.count += range.count;
    else merged.push({ ...range });
  }
  return merged;
}

/** The next runs, at most `count` of them. */
export function takeRuns(runs: Iterator<PageRange>, count: number): PageRange[] {
  const taken: PageRange[] = [];
  while (taken.length < count) {
    const next = runs.next();
    if (next.done === true) break;
    taken.push(next.value);
  }
  return taken;
}
