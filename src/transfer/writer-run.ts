import type { PageRange } from "./ports.js";
import { rangesOf } from "./ranges.js";

/** Most pages that a writer is let through at once. */
export const MAX_WRITER_RUN_PAGES = 16;

/**
 * The pages to let a writer through that waits for `page`: that one, and behind a run of pages that were let through just as many more. So a writer that
 * goes through memory in order waits less and less often, and one that jumps about costs little more than the pages it writes.
 * @param options.isProtected whether a page is held up, or is nothing to let through.
 * @param options.mayJoin whether a page that nobody waits for may be let through along with it.
 */
export function writerRun(
  page: number,
  options: { pageCount: number; isProtected(page: number): boolean; mayJoin(page: number): boolean },
): PageRange {
  let before = 0;
  while (before < MAX_WRITER_RUN_PAGES && before < page && !options.isProtected(page - before - 1))
    before += 1;
  let count = 1;
  while (count < before && page + count < options.pageCount && options.mayJoin(page + count)) count += 1;
  return { first: page, count };
}

/** So few runs, and pages, written since the last round cost less in the pause than another round would outside it: 1 µs a run, 0.1 µs a page. */
const FEW_RUNS = 48;
const FEW_PAGES = 512;
/** So many runs are not protected one by one again, but with all memory. */
const MANY_RUNS = 4096;

/** What is to be protected again, while the guest runs, of pages that it has written since they were: nothing, those, or all memory. */
export function roundFor(written: readonly number[]): "none" | "written" | "all" {
  const runs = rangesOf(written).length;
  if (runs > MANY_RUNS) return "all";
  return runs > FEW_RUNS || written.length > FEW_PAGES ? "written" : "none";
}
