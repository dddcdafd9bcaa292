import { MAX_WORKING_SET_PAGES, type Clock } from "../base/index.js";

/** Pages that go ahead of the sweep because the child is expected to touch them soon. */
export interface PagesAhead {
  /** Pages it names in all. */
  readonly pages: number;
  /** Takes the next pages, at most `most` of those that `wants` says yes to; none when there is nothing to send at the moment. */
  take(most: number, wants: (page: number) => boolean): number[];
  /** The child waits for this page. */
  onFault(page: number): void;
  /** The child is loaded: what it touches from here on, it touches while it runs. */
  childRuns(): void;
  /** What was sent is lost with the lanes. */
  restart(): void;
  /** The transfer is over. */
  end(options: { complete: boolean }): void;
}

/** As a file: u32 children so far, u32 zero; then an entry each page: u32 page, u32 rank. All little-endian, so that an entry read as u64 sorts by rank. */
const HEADER_BYTES = 8;
const ENTRY_BYTES = 8;
const ENTRY_WORDS = 2;
/** Of a rank: set on pages that were touched by a child that ran. Without it they come first: its emulator touched them while it loaded the device state. */
const RUNNING = 0x8000_0000;
const MAX_RANK_US = RUNNING - 1;
/** One page of so many is not sent ahead to a child, so that it is learnt anew whether children wait for it. */
const WITHHELD_SHARE = 32;
/** Most pages sent while the device state is on its way, too: they must not be what it waits for. */
const MAX_EARLY_PAGES = 64;

/**
 * In which order children of one parent first waited for its pages, by the time since they were begun. What is sent ahead nobody waits for any more, so
 * a page of it leaves only when it was withheld from a child that did without. A page that was zero at the instant nobody waits for either, as the child is told of
 * it beforehand and makes it itself: it comes into the set when it is no longer zero for a later child.
 */
export class WorkingSet {
  readonly #pageCount: number;
  readonly #clock: Clock;
  readonly #onChange: () => void;
  /** Sorted by rank. */
  #entries: Uint32Array<ArrayBuffer>;
  /** Ranks of pages that were waited for since the entries were sorted. */
  #noted = new Map<number, number>();
  #unneeded = new Set<number>();
  #children = 0;

  /**
   * @param options.encoded what `encode` gave; entries that name no page of this memory, or are too many, are left out.
   * @param options.onChange called whenever there is something new to encode.
   */
  constructor(options: { pageCount: number; clock: Clock; encoded?: Uint8Array; onChange?: () => void }) {
    this.#pageCount = options.pageCount;
    this.#clock = options.clock;
    this.#onChange = options.onChange ?? (() => {});
    this.#entries = new Uint32Array(0);
    if (options.encoded !== undefined) this.#decode(options.encoded);
  }

  get pages(): number {
    return this.#entries.length / ENTRY_WORDS;
  }

  /** The set as bytes, for `entries` of a later one. */
  encode(): Uint8Array {
    this.#merge();
    const bytes = new Uint8Array(HEADER_BYTES + this.#entries.length * 4);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.#children, true);
    this.#entries.forEach((word, index) => view.setUint32(HEADER_BYTES + index * 4, word, true));
    return bytes;
  }

  #decode(encoded: Uint8Array): void {
    if (encoded.length < HEADER_BYTES) return;
    const view = new DataView(encoded.buffer, encoded.byteOffset, encoded.length);
    this.#children = view.getUint32(0, true);
    const most = HEADER_BYTES + MAX_WORKING_SET_PAGES * ENTRY_BYTES;
    for (let at = HEADER_BYTES; at + ENTRY_BYTES <= Math.min(most, encoded.length); at += ENTRY_BYTES) {
      const page = view.getUint32(at, true);
      if (page < this.#pageCount) this.#noted.set(page, view.getUint32(at + 4, true));
    }
    this.#merge();
  }

  /**
   * What goes ahead to a child that is about to be begun. `learns`: what it waits for becomes part of the set. `begunAgoUs`: so long ago an earlier agent has begun it;
   * what that one withheld is not known, so such a child adds to the set, and takes nothing from it.
   */
  forChild(options: { learns: boolean; begunAgoUs?: number }): PagesAhead {
    this.#merge();
    this.#children = (this.#children + 1) >>> 0;
    const withholds = options.learns && options.begunAgoUs === undefined;
    const early: number[] = [];
    const rest: number[] = [];
    const withheld: number[] = [];
    for (let at = 0; at < this.#entries.length; at += ENTRY_WORDS) {
      const page = this.#entries[at] as number;
      const rank = this.#entries[at + 1] as number;
      if (withholds && (page + this.#children) % WITHHELD_SHARE === 0) withheld.push(page);
      else if (rank < RUNNING) early.push(page);
      else rest.push(page);
    }
    const learn = options.learns
      ? {
          note: (page: number, rank: number) => this.#note(page, rank),
          unneeded: (pages: readonly number[]) => this.#drop(pages),
        }
      : undefined;
    const beganUs =
      options.begunAgoUs === undefined ? undefined : this.#clock.nowUs() - Math.max(0, options.begunAgoUs);
    return new ChildWorkingSet({ clock: this.#clock, beganUs, early, rest, withheld, learn });
  }

  #note(page: number, rank: number): void {
    const before = this.#noted.get(page);
    if (before !== undefined && before <= rank) return;
    this.#noted.set(page, rank);
    this.#unneeded.delete(page);
    // A child may wait for many more pages than are kept.
    if (this.#noted.size > 2 * MAX_WORKING_SET_PAGES) this.#merge();
    this.#onChange();
  }

  #drop(pages: readonly number[]): void {
    for (const page of pages) if (!this.#noted.has(page)) this.#unneeded.add(page);
    this.#onChange();
  }

  /** Sorts what is new into the entries; of a page that was waited for again, the earlier rank counts. */
  #merge(): void {
    if (this.#noted.size === 0 && this.#unneeded.size === 0) return;
    for (let at = 0; at < this.#entries.length; at += ENTRY_WORDS) {
      const page = this.#entries[at] as number;
      const rank = this.#entries[at + 1] as number;
      if (!this.#unneeded.has(page)) this.#noted.set(page, Math.min(rank, this.#noted.get(page) ?? rank));
    }
    const entries = new Uint32Array(this.#noted.size * ENTRY_WORDS);
    let at = 0;
    for (const [page, rank] of this.#noted) {
      entries[at] = page;
      entries[at + 1] = rank;
      at += ENTRY_WORDS;
    }
    new BigUint64Array(entries.buffer).sort();
    this.#entries = entries.slice(0, MAX_WORKING_SET_PAGES * ENTRY_WORDS);
    this.#noted = new Map();
    this.#unneeded = new Set();
  }
}

interface Learn {
  note(page: number, rank: number): void;
  unneeded(pages: readonly number[]): void;
}

/** What one child is sent ahead: what its emulator will touch at once, and the rest as soon as it runs. */
class ChildWorkingSet implements PagesAhead {
  readonly #clock: Clock;
  readonly #pages: readonly number[];
  readonly #earlyCount: number;
  readonly #withheld: Set<number>;
  readonly #learn: Learn | undefined;
  #beganUs: number | undefined;
  #runs = false;
  #cursor = 0;

  constructor(options: {
    clock: Clock;
    beganUs: number | undefined;
    early: readonly number[];
    rest: readonly number[];
    withheld: readonly number[];
    learn: Learn | undefined;
  }) {
    this.#clock = options.clock;
    this.#beganUs = options.beganUs;
    this.#pages = [...options.early, ...options.rest];
    this.#earlyCount = Math.min(MAX_EARLY_PAGES, options.early.length);
    this.#withheld = new Set(options.withheld);
    this.#learn = options.learn;
  }

  get pages(): number {
    return this.#pages.length;
  }

  take(most: number, wants: (page: number) => boolean): number[] {
    this.#beganUs ??= this.#clock.nowUs();
    const end = this.#runs ? this.#pages.length : this.#earlyCount;
    const taken: number[] = [];
    while (taken.length < most && this.#cursor < end) {
      const page = this.#pages[this.#cursor] as number;
      this.#cursor += 1;
      if (wants(page)) taken.push(page);
    }
    return taken;
  }

  onFault(page: number): void {
    if (this.#learn === undefined) return;
    const nowUs = this.#clock.nowUs();
    this.#beganUs ??= nowUs;
    const sinceUs = Math.min(MAX_RANK_US, Math.max(0, Math.round(nowUs - this.#beganUs)));
    this.#withheld.delete(page);
    this.#learn.note(page, this.#runs ? sinceUs + RUNNING : sinceUs);
  }

  childRuns(): void {
    this.#runs = true;
  }

  restart(): void {
    this.#cursor = 0;
  }

  end({ complete }: { complete: boolean }): void {
    // A child that ended before its time has not shown what it does without.
    if (complete) this.#learn?.unneeded([...this.#withheld]);
  }
}
