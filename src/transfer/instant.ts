import { assert, Bitmap, PAGE_BYTES, type Clock, type Log, type Timer } from "../base/index.js";
import { CopyStore } from "./copy-store.js";
import type { CopyFile, PageRange, TrackedMemory } from "./ports.js";
import { rangesOf } from "./ranges.js";
import { MAX_WRITER_RUN_PAGES, roundFor, writerRun } from "./writer-run.js";

/** Rounds of protecting again what was written meanwhile, before the guest is stopped for the last one. */
const MAX_ARM_ROUNDS = 6;
/** Pages let go of per step after a reader has left, so that no fault waits behind all of a large memory. */
const SETTLE_SLICE_PAGES = 8192;

/** Whoever still needs the content of pages as they were at the instant. */
export interface InstantReader {
  /** True while this reader may still need the page. */
  owes(page: number): boolean;
  /** A copy of the page was just taken because the parent is about to write it. */
  onCopied(page: number): void;
  /** Pages this reader may still need. */
  readonly owedCount: number;
  /** The parent's writers have waited too long for this reader, which took nothing meanwhile: it must leave. */
  giveUp(waitedMs: number): void;
}

/** What an instant is made of. */
export interface InstantOptions {
  memory: TrackedMemory;
  /** Where temporary copies are kept; its owner removes it after the end. */
  copies: CopyFile;
  copyBudgetBytes: number;
  /** False for a parent that is stopped for good (a migration): nothing can write, nothing is protected. */
  tracking: boolean;
  /** How long the parent's writers may wait for readers that take nothing, in ms, before those are given up; undefined for ever. */
  stallDeadlineMs?: number;
  clock: Clock;
  log: Log;
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
  readonly #stallDeadlineMs: number | undefined;
  /** For the copies of pages on their way to the file. */
  readonly #pages = new Uint8Array(MAX_WRITER_RUN_PAGES * PAGE_BYTES);
  readonly #readers = new Set<InstantReader>();
  #written: number[] = [];
  #waitingWriters: number[] = [];
  #waitingSinceUs = 0;
  #phase: InstantPhase = "idle";
  #stall: Timer | undefined;
  readonly counters = { writeFaults: 0, copied: 0, writersWaited: 0, writersWaitedUs: 0, rearmed: 0 };

  constructor(options: InstantOptions) {
    this.pageCount = options.memory.pageCount;
    this.#memory = options.memory;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#tracking = options.tracking;
    this.#copies = new CopyStore({ file: options.copies, budgetBytes: options.copyBudgetBytes });
    this.#protected = new Bitmap(this.pageCount, { shared: true });
    this.#stallDeadlineMs = options.stallDeadlineMs;
  }

  /**
   * Takes over, frozen, the instant of an agent that has ended: what is still protected is in guest memory as it was, what is not was copied
   * or is owed to nobody. Errors as `TrackedMemory.track` and `protectedPages`.
   */
  static recover(options: InstantOptions): Instant {
    const instant = new Instant(options);
    instant.#phase = "frozen";
    if (!options.tracking) {
      // A pre-copy may have left writes held up, for which a parent that runs on after all would wait for ever.
      options.memory.track(() => {});
      options.memory.release();
      // Nothing is written any more, and what was written after the instant has its copy.
      instant.#protected.fill();
      for (const page of instant.#copies.keys()) instant.#protected.clear(page);
      return instant;
    }
    options.memory.track((pages) => instant.#onWriteFaults(pages));
    for (const { first, count } of options.memory.protectedPages().runs())
      instant.#protected.setRun(first, count);
    // A copy of a page that is still protected may not have been finished; the page itself is whole.
    const unfinished = [...instant.#copies.keys()].filter((page) => instant.#protected.has(page));
    for (const range of rangesOf(unfinished)) instant.#copies.drop(range);
    return instant;
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
      await this.#protectAll();
      if (this.phase === "released") return;
    }
    this.#phase = "armed";
  }

  /** Protects again, while the guest runs, what it has written since; a few rounds, so that hardly any pages are left for the pause. */
  async converge(): Promise<void> {
    for (let round = 0; round < MAX_ARM_ROUNDS; round += 1) {
      const again = roundFor(this.#written);
      if (again === "none") return;
      if (this.#phase !== "armed") return;
      if (again === "all") await this.#protectAll();
      else {
        this.rearm();
        await this.#turn();
      }
    }
  }

  /** Protects again what was written since the last round; returns how many pages that were. */
  rearm(): number {
    assert(this.#phase === "arming" || this.#phase === "armed", `memory is not rearmed while ${this.#phase}`);
    const written = this.#written.splice(0);
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
    if (this.#readers.size === 0) return this.release();
    this.settle([{ first: 0, count: this.pageCount }]);
  }

  /** Copies pages as they were at the instant into `into`. Some reader must still owe each of them. */
  read(range: PageRange, into: Uint8Array): void {
    assert(this.#phase === "frozen", `pages are read while frozen, not while ${this.#phase}`);
    let first = range.first;
    const end = range.first + range.count;
    while (first < end) {
      const offset = (first - range.first) * PAGE_BYTES;
      if (this.#copies.has(first)) {
        this.#copies.read(first, into.subarray(offset, offset + PAGE_BYTES));
        first += 1;
        continue;
      }
      const past = this.#copies.next(first, end);
      const changed = this.#tracking ? this.#protected.nextClear(first, past) : -1;
      assert(changed === -1, `page ${changed} that is read may have changed`);
      const place = into.subarray(offset, offset + (past - first) * PAGE_BYTES);
      this.#memory.read({ first, count: past - first }, place);
      first = past;
    }
  }

  /** The pages that are in guest memory as they were at the instant, as `SharedBits`; all where nothing is tracked or copied. */
  get held(): SharedArrayBuffer | undefined {
    return this.#tracking || this.#copies.pages > 0 ? this.#protected.sharedBuffer : undefined;
  }

  /** Whether the content the page had at the instant is still here. */
  holds(page: number): boolean {
    return !this.#tracking || this.#protected.has(page) || this.#copies.has(page);
  }

  /** The first page of `owed` whose content at the instant is not here any more; undefined when there is none. */
  firstLost(owed: Bitmap): number | undefined {
    if (!this.#tracking) return undefined;
    for (let page = owed.nextSetOutside(this.#protected, 0); page !== -1;) {
      if (!this.#copies.has(page)) return page;
      page = owed.nextSetOutside(this.#protected, page + 1);
    }
    return undefined;
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

  /**
   * Lets go of every page in `ranges` that no reader owes any more: its copy is dropped, its protection lifted. Many pages are let go of in slices; a
   * writer that touches one of a later slice is let through meanwhile, as nobody is owed it.
   */
  settle(ranges: readonly PageRange[]): void {
    if (this.#phase !== "frozen" || this.#holdsNothing) return;
    const later: PageRange[] = [];
    let room = SETTLE_SLICE_PAGES;
    for (const { first, count } of ranges) {
      const now = Math.min(count, room);
      room -= now;
      this.#settleRange({ first, count: now });
      if (now < count) later.push({ first: first + now, count: count - now });
    }
    this.#admitWriters();
    if (later.length > 0) this.#clock.soon(() => this.settle(later));
  }

  /** Ends it: everything is unprotected and unregistered and nobody waits any more. May be called at any time, twice too. */
  release(): void {
    if (this.#phase === "released") return;
    this.#leave();
    for (const range of rangesOf([...this.#copies.keys()])) this.#copies.drop(range);
    this.#protected.reset();
    if (this.#tracking) this.#memory.release();
    this.#log.debug({ counters: this.counters }, "instant released");
  }

  /** Lets go of it without an end: whoever waits goes on waiting, copies stay, for the next agent to recover. May be called twice. */
  detach(): void {
    if (this.#phase !== "released") this.#leave();
  }

  #leave(): void {
    this.#phase = "released";
    this.#stall?.cancel();
    this.#readers.clear();
    this.#waitingWriters = [];
    this.#written = [];
  }

  get #holdsNothing(): boolean {
    return !this.#tracking && this.#copies.pages === 0;
  }

  #settleRange({ first, count }: PageRange): void {
    const past = first + count;
    for (let page = first; page < past;) {
      const keeping = this.#keepingOf(page);
      const start = page;
      do page += 1;
      while (page < past && this.#keepingOf(page) === keeping);
      if (keeping === "copied") this.#copies.drop({ first: start, count: page - start });
      else if (keeping === "protected") this.#unprotect({ first: start, count: page - start });
    }
  }

  /** Where the content of a page is that nobody is owed; undefined for one that is owed, or already let go of. */
  #keepingOf(page: number): "copied" | "protected" | undefined {
    if (this.#isOwed(page)) return undefined;
    if (this.#copies.has(page)) return "copied";
    return this.#tracking && this.#protected.has(page) ? "protected" : undefined;
  }

  #onWriteFaults(pages: readonly number[]): void {
    this.counters.writeFaults += pages.length;
    for (const page of pages) {
      if (this.#phase === "arming" || this.#phase === "armed") {
        const { first, count } = this.#runOf(page);
        // The page itself may have been let through for another writer; those behind it that go along were not.
        for (let next = first; next < first + count; next += 1)
          if (this.#protected.has(next)) this.#written.push(next);
        this.#unprotect({ first, count });
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
    const range = this.#runOf(page);
    this.#memory.read(range, this.#pages);
    const copied = this.#takeCopies(range);
    if (copied === 0) {
      if (this.#waitingWriters.length === 0) this.#waitingSinceUs = this.#clock.nowUs();
      this.counters.writersWaited += 1;
      this.#waitingWriters.push(page);
      if (this.#stallDeadlineMs !== undefined) this.#watchStall(this.#stallDeadlineMs);
      return;
    }
    this.counters.copied += copied;
    this.#unprotect({ first: page, count: copied });
    for (let next = page; next < page + copied; next += 1)
      for (const reader of this.#readers) if (reader.owes(next)) reader.onCopied(next);
  }

  /** Copies what was read to `#pages`, until there is no room; returns how many pages that were. */
  #takeCopies({ first, count }: PageRange): number {
    for (let index = 0; index < count; index += 1) {
      const bytes = this.#pages.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      if (!this.#copies.take(first + index, bytes)) return index;
    }
    return count;
  }

  #runOf(page: number): PageRange {
    return writerRun(page, {
      pageCount: this.pageCount,
      isProtected: (other) => this.#protected.has(other),
      mayJoin: (other) => this.#protected.has(other) && (this.#phase !== "frozen" || this.#isOwed(other)),
    });
  }

  #admitWriters(): void {
    if (this.#waitingWriters.length === 0) return;
    const waiting = this.#waitingWriters.splice(0);
    this.counters.writersWaitedUs += this.#clock.nowUs() - this.#waitingSinceUs;
    for (const page of waiting) this.#onFrozenWrite(page);
  }

  /** Copies are given back by readers that take their pages. One that takes none while writers wait holds up the parent, perhaps for ever. */
  #watchStall(deadlineMs: number): void {
    if (this.#stall !== undefined) return;
    const before = [...this.#readers].map((reader) => ({ reader, owed: reader.owedCount }));
    this.#stall = this.#clock.after(deadlineMs, () => {
      this.#stall = undefined;
      if (this.#phase !== "frozen" || this.#waitingWriters.length === 0) return;
      for (const { reader, owed } of before) {
        if (this.#readers.has(reader) && reader.owedCount === owed) reader.giveUp(deadlineMs);
      }
      // The host itself may have no room: that is asked again, too.
      this.#admitWriters();
      if (this.#waitingWriters.length > 0) this.#watchStall(deadlineMs);
    });
  }

  #isOwed(page: number): boolean {
    for (const reader of this.#readers) if (reader.owes(page)) return true;
    return false;
  }

  /**
   * Protects everything; what is written meanwhile is remembered. All counts as protected from the beginning, for a write that waits may be told of before this is:
   * a page that is let through meanwhile is among those written then, and it does no harm when it is held up once more.
   */
  async #protectAll(): Promise<void> {
    this.#written = [];
    const all = { first: 0, count: this.pageCount };
    this.#protected.setRun(all.first, all.count);
    await this.#memory.protectAside(all);
  }

  #protect(range: PageRange): void {
    this.#memory.protect(range);
    this.#protected.setRun(range.first, range.count);
  }

  #unprotect(range: PageRange): void {
    this.#protected.clearRun(range.first, range.count);
    this.#protected.publish();
    this.#memory.unprotect(range);
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => this.#clock.soon(resolve));
  }
}
