import type { Clock, Timer } from "../../base/index.js";
import type { TakenPage } from "../../transfer/index.js";
import type { Telling } from "./messages.js";

/** How long what came of faults may wait to be told: nobody who waits for a page waits for that. */
const DELAY_MS = 1;
/** So many pages are told at once. */
const MOST_PAGES = 256;

/** Of one lane, since it was last told of. */
interface LaneBatch {
  pages: number[];
  zeros: number;
  bytes: number;
}

/**
 * Tells what came of faults a millisecond's worth at a time: a message for each wakes the other thread each time, which then has less of the processor for the sweep
 * that would spare the next fault. Everything else is told at once, after what came before it.
 */
export class BatchedTellings {
  readonly #tell: (telling: Telling) => void;
  readonly #clock: Clock;
  readonly #lanes = new Map<number, LaneBatch>();
  readonly #taken = new Map<number, TakenPage[]>();
  #pages = 0;
  #timer: Timer | undefined;

  constructor(clock: Clock, tell: (telling: Telling) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Tells something that is not put off. */
  now(telling: Telling): void {
    this.flush();
    this.#tell(telling);
  }

  /** A lane's request was answered, with `zeros` pages of zeros; `bytes` came and went over it so far. */
  answered(lane: number, pages: readonly number[], zeros: number, bytes: number): void {
    const batch = this.#laneBatch(lane, bytes);
    batch.pages.push(...pages);
    batch.zeros += zeros;
    this.#later(pages.length);
  }

  /** So many bytes came and went over a lane so far. */
  counted(lane: number, bytes: number): void {
    this.#laneBatch(lane, bytes);
    this.#later(0);
  }

  /** A child was given pages. */
  taken(child: number, pages: readonly TakenPage[]): void {
    const batch = this.#taken.get(child);
    if (batch === undefined) this.#taken.set(child, [...pages]);
    else batch.push(...pages);
    this.#later(pages.length);
  }

  /** Tells all there is. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#pages = 0;
    for (const [child, pages] of this.#taken) this.#tell({ is: "taken", child, pages });
    for (const [lane, { pages, zeros, bytes }] of this.#lanes) {
      if (pages.length === 0) this.#tell({ is: "counted", lane, bytes });
      else this.#tell({ is: "answered", lane, pages, zeros, bytes });
    }
    this.#taken.clear();
    this.#lanes.clear();
  }

  #laneBatch(lane: number, bytes: number): LaneBatch {
    const batch = this.#lanes.get(lane) ?? { pages: [], zeros: 0, bytes };
    batch.bytes = bytes;
    this.#lanes.set(lane, batch);
    return batch;
  }

  #later(pages: number): void {
    this.#pages += pages;
    if (this.#pages >= MOST_PAGES) this.flush();
    else this.#timer ??= this.#clock.after(DELAY_MS, () => this.flush());
  }
}
