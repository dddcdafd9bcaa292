import type { Clock, SeededRandom } from "../../../src/base/index.js";
import { WorkingSet, type PagesAhead } from "../../../src/transfer/index.js";

/** Ranks from here on are those of a child that ran; below, those of one that was loaded. */
const RUNNING = 2 ** 31;

/** A working set as earlier children may have left it on the parent's host's disk: pages in any order, each with the chance `share`. */
export function drawWorkingSet(random: SeededRandom, options: { pages: number; share: number }): Uint8Array {
  const words = [random.below(1000), 0];
  for (let page = 0; page < options.pages; page += 1)
    if (random.chance(options.share))
      words.push(page, random.below(1000) + random.pick([0, RUNNING, RUNNING]));
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  words.forEach((word, index) => view.setUint32(index * 4, word, true));
  return bytes;
}

/** What goes ahead to one child, by a set that was left. Under an agent that goes on with a child nothing is withheld, and the child may run. */
export function aheadOf(
  clock: Clock,
  set: { pageCount: number; encoded: Uint8Array },
  { recovered }: { recovered: boolean },
): PagesAhead {
  const ahead = new WorkingSet({ clock, ...set }).forChild({
    learns: true,
    ...(recovered ? { begunAgoUs: 1000 } : {}),
  });
  if (recovered) ahead.childRuns();
  return ahead;
}
