import { assert, Bitmap, type Clock, type Log } from "../base/index.js";
import type { PageRange, PrivateMapping, TrackedMemory } from "./ports.js";

/** Pages that are separated at once around the one the parent writes; one that is separated in vain costs each child 4 KiB. See docs/performance.md. */
export const SEPARATE_RUN_PAGES = 16;
/** Pages protected or let go of per step, so that no fault waits behind all of a large memory. */
const SLICE_PAGES = 8192;

/** A child that sees its parent's memory where it has no pages of its own. */
interface Sharer {
  mapping: PrivateMapping;
  /** Pages it may not have for itself. What it wrote has become its own without anybody here being told, so these are more than it lacks. */
  shares: Bitmap;
  /** Pages could not be separated: it must end, and the parent's writers wait until it has left. */
  onFailed(): void;
  failed: boolean;
}

/** What a child leaves by. */
export interface Sharing {
  /** Pages the child may still share. */
  readonly sharedPages: number;
  /** The child has ended. May be called twice. */
  leave(): void;
}

export interface SharedMemoryOptions {
  memory: TrackedMemory;
  clock: Clock;
  log: Log;
  /** Called when the number of children changes. */
  onChange?: () => void;
}

/**
 * A parent's memory that children on its host have mapped privately: they see what is in it, whatever instant they are from, until they have pages of their
 * own. So before the parent writes a page, each child that still shares it is given a copy: the page is *separated*. What a child shares is protected, for as long as it
 * shares it; a transfer that protects the same memory for its own ends sees this object in its place, and need not know of the children.
 *
 *     parent writes P ─ waits ─▶ every child that shares P: separate(P and its neighbours) ─▶ the transfer, if there is one: keeps P ─▶ P is unprotected
 *
 * Invariant: a page some child shares is protected, unless the guest is frozen, which writes nothing. So a new agent knows what children share from what
 * it finds protected, and nothing of it is written down.
 */
export class SharedMemory implements TrackedMemory {
  readonly pageCount: number;
  readonly #memory: TrackedMemory;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onChange: () => void;
  readonly #sharers = new Set<Sharer>();
  /** A transfer's, while there is one. */
  #onWriteFaults: ((pages: readonly number[]) => void) | undefined;
  #tracked = false;
  #frozen = false;
  #detached = false;
  /** Pages whose writers wait for a child that must end. */
  #waiting: number[] = [];
  readonly counters = { separated: 0, separations: 0, writersWaited: 0 };

  constructor(options: SharedMemoryOptions) {
    this.#memory = options.memory;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#onChange = options.onChange ?? (() => {});
    this.pageCount = options.memory.pageCount;
  }

  /** Children that share, whatever little. */
  get sharers(): number {
    return this.#sharers.size;
  }

  /**
   * A child shares all of this memory from now on, the instant: every page is protected and the guest is stopped, or it is frozen.
   * @param onFailed called once when the child could not be given a page: it must be ended, and then leave.
   */
  join(mapping: PrivateMapping, onFailed: () => void): Sharing {
    assert(this.#tracked || this.#frozen, "memory is shared at an instant, or when it is frozen");
    const shares = new Bitmap(this.pageCount);
    shares.fill();
    return this.#add({ mapping, shares, onFailed, failed: false });
  }

  /** As `join`, for a child of an earlier agent: it shares no more than what is protected. Before anything is tracked. */
  rejoin(mapping: PrivateMapping, onFailed: () => void): Sharing {
    assert(!this.#tracked, "children of an earlier agent are known before faults are served");
    const shares = this.#frozen ? new Bitmap(this.pageCount) : this.#memory.protectedPages();
    if (this.#frozen) shares.fill();
    return this.#add({ mapping, shares, onFailed, failed: false });
  }

  /** Serves the writers of an earlier agent's parent, unless a transfer of its does so already. */
  goOn(): void {
    if (this.#tracked || this.#frozen) return;
    this.#track();
    this.#letGoIfUnshared();
  }

  /** The guest is stopped, and writes nothing until `thaw`: nothing is protected any more. */
  freeze(): void {
    assert(this.#onWriteFaults === undefined, "memory is not frozen during a transfer");
    this.#frozen = true;
    this.#untrack();
  }

  /** The guest is about to run on, and does not before this resolves: what children share is protected first. Errors as `track`. */
  async thaw(): Promise<void> {
    assert(this.#frozen, "only frozen memory is thawed");
    if (!this.#tracked) this.#track();
    for (let first = 0; first < this.pageCount && this.#sharers.size > 0; first += SLICE_PAGES) {
      const count = Math.min(SLICE_PAGES, this.pageCount - first);
      for (const run of this.#shared({ first, count })) this.#memory.protect(run);
      await new Promise<void>((resolve) => this.#clock.soon(resolve));
    }
    this.#frozen = false;
    this.#letGoIfUnshared();
  }

  /** Lets go of it when the agent ends: whoever waits goes on waiting, for the next agent. */
  detach(): void {
    this.#detached = true;
  }

  track(onWriteFaults: (pages: readonly number[]) => void): void {
    assert(this.#onWriteFaults === undefined, "one transfer at a time tracks memory");
    this.#onWriteFaults = onWriteFaults;
    if (!this.#tracked) this.#track();
  }

  protectedPages(): Bitmap {
    return this.#memory.protectedPages();
  }

  protect(range: PageRange): void {
    this.#memory.protect(range);
  }

  protectAside(range: PageRange): Promise<void> {
    return this.#memory.protectAside(range);
  }

  /** Lets writes through, as far as no child shares the pages. */
  unprotect(range: PageRange): void {
    for (const run of this.#unshared(range)) this.#memory.unprotect(run);
  }

  read(range: PageRange, into: Uint8Array): void {
    this.#memory.read(range, into);
  }

  nextData(page: number): PageRange | undefined {
    return this.#memory.nextData(page);
  }

  /** Ends the transfer's tracking. What children share stays protected. */
  release(): void {
    this.#onWriteFaults = undefined;
    if (this.#letGoIfUnshared()) return;
    if (this.#tracked) this.#letGo({ first: 0, count: this.pageCount });
  }

  #add(sharer: Sharer): Sharing {
    this.#sharers.add(sharer);
    this.#onChange();
    return {
      get sharedPages() {
        return sharer.shares.count;
      },
      leave: () => this.#leave(sharer),
    };
  }

  #leave(sharer: Sharer): void {
    if (!this.#sharers.delete(sharer)) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length > 0) this.#onFaults(waiting);
    this.#onChange();
    if (this.#onWriteFaults === undefined && !this.#letGoIfUnshared() && this.#tracked)
      this.#letGo({ first: 0, count: this.pageCount });
  }

  #track(): void {
    this.#memory.track((pages) => this.#onFaults(pages));
    this.#tracked = true;
  }

  #untrack(): void {
    this.#tracked = false;
    this.#waiting = [];
    this.#memory.release();
  }

  #onFaults(pages: readonly number[]): void {
    if (!this.#tracked || this.#detached) return;
    if (this.#sharers.size === 0) return this.#pass(pages);
    const separated: number[] = [];
    for (const page of pages) {
      if (this.#separate(page)) separated.push(page);
      else {
        this.counters.writersWaited += 1;
        this.#waiting.push(page);
      }
    }
    if (separated.length > 0) this.#pass(separated);
  }

  /** Nobody shares these pages any more. */
  #pass(pages: readonly number[]): void {
    if (this.#onWriteFaults !== undefined) return this.#onWriteFaults(pages);
    for (const page of pages) this.#memory.unprotect(this.#unsharedAround(page));
    this.#letGoIfUnshared();
  }

  /** Gives every child that shares the page a copy of it. False when one could not be given it. */
  #separate(page: number): boolean {
    let all = true;
    for (const sharer of this.#sharers) {
      if (!sharer.shares.has(page)) continue;
      all = !sharer.failed && this.#separateFrom(sharer, this.#runAround(sharer, page)) && all;
    }
    return all;
  }

  #separateFrom(sharer: Sharer, run: PageRange): boolean {
    if (sharer.mapping.separate(run)) {
      sharer.shares.clearRun(run.first, run.count);
      this.counters.separations += 1;
      this.counters.separated += run.count;
      return true;
    }
    sharer.failed = true;
    this.#log.warn({ pages: run }, "a child could not be given pages of its own");
    sharer.onFailed();
    return false;
  }

  /** The pages around one, within its aligned run, that a child shares. */
  #runAround({ shares }: Sharer, page: number): PageRange {
    return runAround(page, this.pageCount, (other) => shares.has(other));
  }

  #unsharedAround(page: number): PageRange {
    return runAround(page, this.pageCount, (other) => !this.#isShared(other));
  }

  #isShared(page: number): boolean {
    for (const { shares } of this.#sharers) if (shares.has(page)) return true;
    return false;
  }

  /** The parts of a range that no child shares. */
  *#unshared({ first, count }: PageRange): Generator<PageRange> {
    const past = first + count;
    for (let page = first; page < past; page = this.#endOfShared(page)) {
      const shared = Math.min(past, this.#nextShared(page));
      if (shared > page) yield { first: page, count: shared - page };
      page = shared;
    }
  }

  /** The parts of a range that some child shares. */
  *#shared({ first, count }: PageRange): Generator<PageRange> {
    const past = first + count;
    for (let page = this.#nextShared(first); page < past;) {
      const end = Math.min(past, this.#endOfShared(page));
      yield { first: page, count: end - page };
      page = this.#nextShared(end);
    }
  }

  #nextShared(from: number): number {
    let next = this.pageCount;
    for (const { shares } of this.#sharers) {
      const page = shares.nextSet(from);
      if (page !== -1 && page < next) next = page;
    }
    return next;
  }

  /** The first page at or after `from` that no child shares. */
  #endOfShared(from: number): number {
    for (let page = from; page < this.pageCount;) {
      let end = page;
      for (const { shares } of this.#sharers) {
        if (!shares.has(page)) continue;
        const clear = shares.nextClear(page);
        end = Math.max(end, clear === -1 ? this.pageCount : clear);
      }
      if (end === page) return page;
      page = end;
    }
    return this.pageCount;
  }

  /** Unprotects what nobody shares, in slices: a writer that touches one of a later slice is let through meanwhile. */
  #letGo({ first, count }: PageRange): void {
    if (!this.#tracked || this.#detached || this.#onWriteFaults !== undefined) return;
    const now = Math.min(count, SLICE_PAGES);
    this.unprotect({ first, count: now });
    if (now < count) this.#clock.soon(() => this.#letGo({ first: first + now, count: count - now }));
  }

  /** Ends all tracking when no child shares anything, and no transfer needs it. */
  #letGoIfUnshared(): boolean {
    if (this.#onWriteFaults !== undefined) return false;
    for (const { shares } of this.#sharers) if (shares.count > 0) return false;
    this.#untrack();
    return true;
  }
}

function runAround(page: number, pageCount: number, belongs: (page: number) => boolean): PageRange {
  const start = page - (page % SEPARATE_RUN_PAGES);
  const end = Math.min(pageCount, start + SEPARATE_RUN_PAGES);
  let first = page;
  while (first > start && belongs(first - 1)) first -= 1;
  let past = page + 1;
  while (past < end && belongs(past)) past += 1;
  return { first, count: past - first };
}
