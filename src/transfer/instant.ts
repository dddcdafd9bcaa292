import { assert, Bitmap, PAGE_BYTES, type Clock, type Log } from "../base/index.js";
import { CopyStore } from "./copy-store.js";
import type { PageRange, TrackedMemory } from "./ports.js";
import { rangesOf } from "./ranges.js";

/** Pages protected per step while the guest runs, so that a fault never waits behind the arming of a large memory. */
const ARM_SLICE_PAGES = 8192;
/** Rounds of protecting again what was written meanwhile, before the guest is stopped for the last one. */
const MAX_ARM_ROUNDS = 4;
/** So few pages written since the last round cost less in the pause than another round would outside it. */
const FEW_PAGES = 48;

/** Whoever still needs the content of pages as they were at the instant. */
export interface InstantReader {
  /** True while this reader may still need the page. */
  owes(page: number): boolean;
  /** A copy of the page was just taken because the parent is about to write it. */
  onCopied(page: number): void;
}

/** What became of the memory at the instant; `released` is the end of every path. */
export type InstantPhase = "idle" | "arming" | "armed" | "frozen" | "released";

/**
 * A guest's memory as it is at one instant, while the guest runs on. Each page is in one of three places: still in guest memory and
 * protected; in a temporary copy, when the parent wanted to write it; or nowhere, when no reader needs it any more.
 *
 * Invariant: while frozen, a page some reader owes is protected or has a copy. It is checked on each read.
 */
export class Instant {
  readonly pageCount: number;
  readonly #memory: TrackedMemory;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #tracking: boolean;
  readonly #copies: CopyStore;
  readonly #protected: Bitmap;
  readonly #readers = new Set<InstantReader>();
  #written: number[] = [];
  #waitingWriters: number[] = [];
  #waitingSinceUs = 0;
  #phase: InstantPhase = "idle";
  readonly counters = { writeFaults: 0, copied: 0, writersWaited: 0, writersWaitedUs: 0, rearmed: 0 };

  /** @param options.tracking false for a parent that is stopped for good (a migration): nothing can write, nothing is protected. */
  constructor(options: {
    memory: TrackedMemory;
    copyBudgetBytes: number;
    tracking: boolean;
    clock: Clock;
    log: Log;
  }) {
    this.pageCount = options.memory.pageCount;
    this.#memory = options.memory;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#tracking = options.tracking;
    this.#copies = new CopyStore(options.copyBudgetBytes);
    this.#protected = new Bitmap(this.pageCount);
  }

  get phase(): InstantPhase {
    return this.#phase;
  }

  /** Temporary copies held now, their peak and their budget, in pages, and writers that wait for room at this moment. */
  get copies(): { pages: number; peakPages: number; budgetPages: number; waitingWriters: number } {
    const { pages, peakPages, budgetPages } = this.#copies;
    return { pages, peakPages, budgetPages, waitingWriters: this.#waitingWriters.length };
  }

  /**
   * Protects all memory while the guest runs. Pages the guest writes meanwhile are let through and remembered.
   */
  async arm(): Promise<void> {
    assert(this.#phase === "idle", `an instant is armed once, not while ${this.#phase}`);
    this.#phase = "arming";
    if (this.#tracking) {
      this.#memory.track((pages) => this.#onWriteFaults(pages));
      for (let first = 0; first < this.pageCount; first += ARM_SLICE_PAGES) {
        this.#protect({ first, count: Math.min(ARM_SLICE_PAGES, this.pageCount - first) });
        await this.#turn();
        if (this.#releasedMeanwhile()) return;
      }
    }
    this.#phase = "armed";
  }

  /** Protects again, while the guest runs, what it has written since; a few rounds, so that hardly any pages are left for the pause. */
  async converge(): Promise<void> {
    for (let round = 0; round < MAX_ARM_ROUNDS && this.#written.length > FEW_PAGES; round += 1) {
      if (this.#phase !== "armed") return;
      this.rearm();
      await this.#turn();
    }
  }

  /** Protects again what was written since the last round; returns how many pages that were. */
  rearm(): number {
    assert(this.#phase === "arming" || this.#phase === "armed", `memory is not rearmed while ${this.#phase}`);
    const written = this.#written;
    this.#written = [];
    for (const range of rangesOf(written)) this.#protect(range);
    this.counters.rearmed += written.length;
    return written.length;
  }

  /** The instant itself: from here on content is kept. The guest must be stopped. */
  freeze(): void {
    assert(this.#phase === "armed", `memory is frozen once, when armed, not while ${this.#phase}`);
    if (this.#tracking) {
      this.rearm();
      assert(this.#protected.count === this.pageCount, "at the instant every page is protected");
    }
    this.#phase = "frozen";
  }

  addReader(reader: InstantReader): void {
    assert(this.#phase !== "released", "a reader joins before the end");
    this.#readers.add(reader);
  }

  /** Forgets a reader, with all it owed. The instant is released with its last reader. */
  removeReader(reader: InstantReader): void {
    if (!this.#readers.delete(reader) || this.#phase !== "frozen") return;
    if (this.#readers.size === 0) {
      this.release();
      return;
    }
    this.settle([{ first: 0, count: this.pageCount }]);
  }

  /** Copies pages as they were at the instant into `into`. Some reader must still owe each of them. */
  read(range: PageRange, into: Uint8Array): void {
    assert(this.#phase === "frozen", `pages are read while frozen, not while ${this.#phase}`);
    let first = range.first;
    const end = range.first + range.count;
    while (first < end) {
      const copy = this.#copies.get(first);
      const offset = (first - range.first) * PAGE_BYTES;
      if (copy !== undefined) {
        into.set(copy, offset);
        first += 1;
        continue;
      }
      let past = first;
      while (past < end && !this.#copies.has(past)) {
        assert(
          !this.#tracking || this.#protected.has(past),
          `page ${past} is read when its content may have changed`,
        );
        past += 1;
      }
      this.#memory.read(
        { first, count: past - first },
        into.subarray(offset, offset + (past - first) * PAGE_BYTES),
      );
      first = past;
    }
  }

  /** True when the page is held as a copy, which is sent as a push, ahead of the sweep. */
  hasCopy(page: number): boolean {
    return this.#copies.has(page);
  }

  /** The pages that are held as copies. */
  copiedPages(): IterableIterator<number> {
    return this.#copies.keys();
  }

  /**
   * The first range at or after `page` that is not a hole of the memory file. A page that is a hole now was one at the instant, since pages never
   * turn back into holes, so this may be asked at any time; a hole that was filled since is found among the copies.
   */
  nextData(page: number): PageRange | undefined {
    return this.#memory.nextData(page);
  }

  /** Lets go of every page in `ranges` that no reader owes any more: its copy is dropped, its protection lifted. */
  settle(ranges: readonly PageRange[]): void {
    if (this.#phase !== "frozen") return;
    for (const range of ranges) this.#settleRange(range);
    this.#admitWriters();
  }

  /** Ends it: everything is unprotected and unregistered and nobody waits any more. May be called at any time, twice too. */
  release(): void {
    if (this.#phase === "released") return;
    this.#phase = "released";
    this.#readers.clear();
    this.#waitingWriters = [];
    this.#written = [];
    for (const page of [...this.#copies.keys()]) this.#copies.drop(page);
    if (this.#tracking) this.#memory.release();
    this.#log.debug({ counters: this.counters }, "instant released");
  }

  #settleRange(range: PageRange): void {
    let run: PageRange | undefined;
    const end = range.first + range.count;
    for (let page = range.first; page < end; page += 1) {
      if (this.#isOwed(page)) continue;
      if (this.#copies.drop(page) || !this.#tracking || !this.#protected.has(page)) continue;
      if (run !== undefined && run.first + run.count === page) {
        run.count += 1;
        continue;
      }
      if (run !== undefined) this.#unprotect(run);
      run = { first: page, count: 1 };
    }
    if (run !== undefined) this.#unprotect(run);
  }

  #onWriteFaults(pages: readonly number[]): void {
    this.counters.writeFaults += pages.length;
    for (const page of pages) {
      if (this.#phase === "arming" || this.#phase === "armed") {
        if (this.#protected.has(page)) this.#written.push(page);
        this.#unprotect({ first: page, count: 1 });
      } else if (this.#phase === "frozen") {
        this.#onFrozenWrite(page);
      }
    }
  }

  #onFrozenWrite(page: number): void {
    if (!this.#protected.has(page) || !this.#isOwed(page)) {
      this.#unprotect({ first: page, count: 1 });
      return;
    }
    if (this.#copies.full) {
      if (this.#waitingWriters.length === 0) this.#waitingSinceUs = this.#clock.nowUs();
      this.counters.writersWaited += 1;
      this.#waitingWriters.push(page);
      return;
    }
    this.#memory.read({ first: page, count: 1 }, this.#copies.take(page));
    this.counters.copied += 1;
    this.#unprotect({ first: page, count: 1 });
    for (const reader of this.#readers) if (reader.owes(page)) reader.onCopied(page);
  }

  #admitWriters(): void {
    if (this.#waitingWriters.length === 0) return;
    const waiting = this.#waitingWriters;
    this.#waitingWriters = [];
    this.counters.writersWaitedUs += this.#clock.nowUs() - this.#waitingSinceUs;
    for (const page of waiting) this.#onFrozenWrite(page);
  }

  #isOwed(page: number): boolean {
    for (const reader of this.#readers) if (reader.owes(page)) return true;
    return false;
  }

  #protect(range: PageRange): void {
    this.#memory.protect(range);
    this.#protected.setRun(range.first, range.count);
  }

  #unprotect(range: PageRange): void {
    for (let page = range.first; page < range.first + range.count; page += 1) this.#protected.clear(page);
    this.#memory.unprotect(range);
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => this.#clock.soon(resolve));
  }

  #releasedMeanwhile(): boolean {
    return this.#phase === "released";
  }
}
