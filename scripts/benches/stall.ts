import { realClock, sleep } from "../../src/base/index.js";
import type { Touches } from "./sample.js";
import { metricOfBuckets, type Bucket, type Results } from "./statistics.js";
import type { Moved, Mover } from "./turns.js";

/** Touches a second. A guest with one processor has time for many more, and so for its other work. */
const TOUCH_RATE = 20_000;
/** A touch that takes so long has waited for something; most take about 1 µs under software emulation. */
export const STALL_THRESHOLD_US = 50;
const SETTLE_MS = 300;

/** What a guest feels of being moved: it touches random pages from before the command until `windowMs` after it. */
export async function feel(
  mover: Mover,
  how: { mode: "read" | "write"; windowMs: number; rate?: number },
): Promise<{ touches: Touches; moved: Moved }> {
  const { mode, rate = TOUCH_RATE } = how;
  await mover.guest().startTouching({ mode, rate, thresholdUs: STALL_THRESHOLD_US });
  await sleep(realClock, SETTLE_MS);
  await mover.guest().resetTouches();
  const beganUs = realClock.nowUs();
  const moved = await mover.move();
  const restMs = how.windowMs - (realClock.nowUs() - beganUs) / 1000;
  if (restMs > 0) await sleep(realClock, restMs);
  return { touches: await mover.guest().stopTouching(), moved };
}

/** Gathers what guests felt in several runs, and adds it to the results under a name. */
export class Feelings {
  readonly #results: Results;
  readonly #all = new Map<string, { buckets: Bucket[]; maxUs: number }>();

  constructor(results: Results) {
    this.#results = results;
  }

  /**
   * Adds one run as `NAME` (every touch), `NAME_wait` (those that took STALL_THRESHOLD_US or longer), `NAME_mean` (of a run's touches) and `NAME_total` (sum of a run's waits).
   */
  add(name: string, suffix: string, touches: Touches): void {
    const key = `${name}${suffix}`;
    const all = this.#all.get(key) ?? { buckets: [], maxUs: 0 };
    this.#all.set(key, all);
    all.buckets.push(...touches.buckets);
    all.maxUs = Math.max(all.maxUs, touches.max_us);
    this.#results.set(key, metricOfBuckets("µs", all.buckets, all.maxUs));
    const waits = all.buckets.filter(([longestUs]) => longestUs >= STALL_THRESHOLD_US);
    this.#results.set(`${name}_wait${suffix}`, metricOfBuckets("µs", waits, all.maxUs));
    this.#results.add(`${name}_mean${suffix}`, "µs", touches.mean_ns / 1000);
    this.#results.add(`${name}_total${suffix}`, "ms", touches.stall_us / 1000);
  }
}
