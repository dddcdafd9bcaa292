import { MAX_RECEIVED_RUNS, type Clock, type Timer } from "../base/index.js";
import type { Channel, PageRange } from "./ports.js";
import { mergeRanges, takeRuns } from "./ranges.js";

/** Frames in which a child tells what it has that are sent before faults have their turn, and the pause after them, or while the network stack lags behind. */
const HAVE_FRAMES_PER_TURN = 8;
const HAVE_PAUSE_MS = 1;
/** Bytes the network stack may lag behind before that waits. */
const MAX_QUEUED_BYTES = 1024 * 1024;

export interface ChildReportsOptions {
  clock: Clock;
  /** The present bulk lane, if there is one. */
  lane(): Channel | undefined;
  /** True while a child that is passed on to lags behind: the parent is given no credit, so that it waits for it. */
  withholds(): boolean;
}

/** What a child tells its parent: over each pair of lanes first which pages are here, then what comes, and credit for it. */
export class ChildReports {
  readonly #options: ChildReportsOptions;
  #runs: PageRange[] = [];
  #creditBytes = 0;
  #timer: Timer | undefined;
  #told = false;

  constructor(options: ChildReportsOptions) {
    this.#options = options;
  }

  /** Over the present lanes, the parent has been told which pages are here. */
  get told(): boolean {
    return this.#told;
  }

  /**
   * Over new lanes, tells which pages are here, a few frames a turn: a large memory full of holes has millions of runs, and faults must not wait for all of
   * them. Then calls `onTold`.
   */
  tellHave(runs: Iterator<PageRange>, onTold: () => void): void {
    this.stop();
    this.#runs = [];
    this.#creditBytes = 0;
    this.#tellSome(runs, onTold);
  }

  /** Pages are here that were not. */
  add(ranges: readonly PageRange[]): void {
    this.#runs.push(...ranges);
  }

  /** So many bytes more came over the bulk lane. */
  credit(bytes: number): void {
    this.#creditBytes += bytes;
  }

  /** Reports at the end of this turn, if there is anything to report and the parent knows what was here before. */
  soon(): void {
    if (this.#timer !== undefined || !this.#told) return;
    if (this.#runs.length === 0 && this.#credit === 0) return;
    this.#timer = this.#options.clock.soon(() => this.now());
  }

  /** Reports what there is. */
  now(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const runs = mergeRanges(this.#runs);
    const credit = this.#credit;
    if (runs.length === 0 && credit === 0) return;
    for (let first = 0; first === 0 || first < runs.length; first += MAX_RECEIVED_RUNS) {
      const creditBytes = first === 0 ? credit : 0;
      this.#options.lane()?.send({
        kind: "received",
        creditBytes,
        runs: runs.slice(first, first + MAX_RECEIVED_RUNS),
      });
    }
    this.#runs = [];
    this.#creditBytes -= credit;
  }

  /** The lanes are gone: nothing is reported until the next ones. */
  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#told = false;
  }

  #tellSome(runs: Iterator<PageRange>, onTold: () => void): void {
    this.#timer = undefined;
    const lane = this.#options.lane();
    for (let frames = 0; frames < HAVE_FRAMES_PER_TURN; frames += 1) {
      if ((lane?.queuedBytes ?? 0) > MAX_QUEUED_BYTES) break;
      const some = takeRuns(runs, MAX_RECEIVED_RUNS);
      const last = some.length < MAX_RECEIVED_RUNS;
      lane?.send({ kind: "have", last, runs: some });
      if (!last) continue;
      this.#told = true;
      return onTold();
    }
    this.#timer = this.#options.clock.after(HAVE_PAUSE_MS, () => this.#tellSome(runs, onTold));
  }

  get #credit(): number {
    return this.#options.withholds() ? 0 : this.#creditBytes;
  }
}
