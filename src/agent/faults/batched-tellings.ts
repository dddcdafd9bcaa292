import type { Clock, Timer } from "../../base/index.js";
import { pagesOf, type Answers, type PageRange, type TakenPages } from "../../transfer/index.js";
import type { Telling } from "./messages.js";

/** How long what came of faults may wait to be told: nobody who waits for a page waits for that. */
const DELAY_MS = 1;
/** So many pages are told at once. */
const MOST_PAGES = 256;

/** Of one lane, since it was last told of. */
interface LaneBatch extends Answers {
  pages: number[];
  around: PageRange[];
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
  readonly #taken = new Map<number, TakenPages[]>();
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

  /** A lane's requests were answered; `bytes` came and went over it so far. */
  answered(lane: number, answers: Answers, bytes: number): void {
    const batch = this.#laneBatch(lane, bytes);
    batch.pages.push(...answers.pages);
    batch.zeros += answers.zeros;
    batch.around.push(...answers.around);
    batch.aroundBytes += answers.aroundBytes;
    this.#later(answers.pages.length);
  }

  /** So many bytes came and went over a lane so far. */
  counted(lane: number, bytes: number): void {
    this.#laneBatch(lane, bytes);
    this.#later(0);
  }

  /** A child was given pages. */
  taken(child: number, taken: readonly TakenPages[]): void {
    const batch = this.#taken.get(child);
    if (batch === undefined) this.#taken.set(child, [...taken]);
    else batch.push(...taken);
    this.#later(pagesOf(taken));
  }

  /** Tells all there is. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#pages = 0;
    for (const [child, taken] of this.#taken) this.#tell({ is: "taken", child, taken });
    for (const [lane, { bytes, ...answers }] of this.#lanes) {
      if (answers.pages.length === 0) this.#tell({ is: "counted", lane, bytes });
      else this.#tell({ is: "answered", lane, answers, bytes });
    }
    this.#taken.clear();
    this.#lanes.clear();
  }

  #laneBatch(lane: number, bytes: number): LaneBatch {
    const batch = this.#lanes.get(lane) ?? { pages: [], zeros: 0, around: [], aroundBytes: 0, bytes };
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
