import { Bitmap, PAGE_BYTES, PAGE_HASH_BYTES, SharedBits, type Clock } from "../base/index.js";
import { unpackRun, type PageRun } from "../wire/index.js";
import { PageDigests } from "./digests.js";
import { Gate } from "./gate.js";
import { LatencyHistogram } from "./latency.js";
import type { ChildNotes, ChildShare, FillableMemory, FaultThread, PageRange, TakenPages } from "./ports.js";
import { OriginCounts, type VerifyResult } from "./progress.js";

/**
 * What a child knows of each page: missing, requested, known to be zero, or installed. A page becomes received once, by being installed or known to be
 * zero, and never goes back. It knows no lane.
 */
export class ChildPages {
  /** Pages whose content is here, known zero pages included. */
  readonly received: Bitmap;
  readonly counts = new OriginCounts();
  readonly latency = new LatencyHistogram();
  readonly #memory: FillableMemory;
  readonly #clock: Clock;
  readonly #notes: ChildNotes;
  /** Pages that are really in memory; the others that are received are zero and still holes. */
  readonly #installed: Bitmap;
  /** When each page that is waited for was first touched. */
  readonly #requested = new Map<number, number>();
  /** Whoever serves touches in the place of `touched`, and what it has asked for. */
  readonly #thread: Pick<FaultThread, "settled"> | undefined;
  readonly #gate = new Gate();
  readonly #askedElsewhere: SharedBits;
  readonly #given: PageDigests | undefined;
  readonly #expected: PageDigests | undefined;
  zeroPages = 0;
  duplicates = 0;

  constructor(options: {
    memory: FillableMemory;
    clock: Clock;
    verify: boolean;
    notes: ChildNotes;
    recovered?: object;
    faults?: Pick<FaultThread, "settled">;
  }) {
    const { pageCount } = options.memory;
    this.#memory = options.memory;
    this.#clock = options.clock;
    this.#notes = options.notes;
    const shared = options.faults !== undefined;
    this.#thread = options.faults;
    this.received = new Bitmap(pageCount, { shared });
    this.#installed = new Bitmap(pageCount, { shared });
    this.#askedElsewhere = SharedBits.make(shared ? pageCount : 0);
    this.#given = options.verify ? new PageDigests(pageCount) : undefined;
    this.#expected = options.verify ? new PageDigests(pageCount) : undefined;
    if (options.recovered !== undefined) this.recover();
  }

  get pageCount(): number {
    return this.#memory.pageCount;
  }

  /** What whoever serves touches elsewhere sees of the pages. */
  get share(): ChildShare {
    return {
      gate: this.#gate.buffer,
      received: this.received.sharedBuffer,
      installed: this.#installed.sharedBuffer,
      requested: this.#askedElsewhere.buffer,
    };
  }

  /** Pages somebody waits for, as `touched` was told. */
  get requested(): number[] {
    return [...this.#requested.keys()];
  }

  /** How many pages somebody waits for. */
  get waiting(): number {
    return this.#requested.size + this.#gate.waiting;
  }

  /** Whether the content of pages that were installed elsewhere is wanted. */
  set wantsContent(wanted: boolean) {
    this.#gate.wantsContent = wanted;
  }

  /** What a transfer's progress tells of its pages. */
  progress() {
    const { counts, received, pageCount, zeroPages, duplicates, latency, waiting } = this;
    return {
      total: pageCount,
      received: received.count,
      fault: counts.fault,
      push: counts.push,
      sweep: counts.sweep,
      zero: zeroPages,
      duplicates,
      faults: { waiting, ...latency.summary() },
    };
  }

  /** True when every page is here and, where asked for, every digest to compare with. */
  get complete(): boolean {
    return this.received.count === this.pageCount && this.#expected?.complete !== false;
  }

  /** Serves touches of what is here and returns the pages that have to be requested. Errors as `FillableMemory.install`. */
  touched(pages: readonly number[]): number[] {
    const nowUs = this.#clock.nowUs();
    const wanted: number[] = [];
    for (const page of pages) {
      if (this.#installed.has(page)) {
        this.#memory.wake({ first: page, count: 1 });
      } else if (this.received.has(page)) {
        this.#installZero(page);
        this.latency.add(this.#clock.nowUs() - nowUs);
      } else if (!this.#requested.has(page)) {
        this.#requested.set(page, nowUs);
        wanted.push(page);
      }
    }
    return wanted;
  }

  /**
   * Installs what is missing of the runs and returns the ranges that are received by that; the rest is counted as duplicate and dropped.
   * Errors as `FillableMemory.install` and `unpackRun`.
   */
  take(runs: readonly PageRun[]): PageRange[] {
    const taken: PageRange[] = [];
    for (const run of runs) {
      this.counts.add(run.origin, run.pageCount);
      const bytes = run.encoding === "zero" ? undefined : unpackRun(run);
      for (const range of this.#missingOf(run)) {
        if (bytes === undefined) this.#learnZero(range);
        else this.#install(range, sliceOf(bytes, run, range));
        this.received.setRun(range.first, range.count);
        taken.push(range);
        this.#seeToAsked(range);
      }
    }
    return taken;
  }

  /** Notes what was installed elsewhere and returns the ranges that are received by that, and what they came with. */
  takenElsewhere(pages: readonly TakenPages[]): { missing: PageRange[]; taken: TakenPages[] } {
    const missing: PageRange[] = [];
    const taken: TakenPages[] = [];
    for (const one of pages) {
      const { firstPage, pageCount, by, latencyUs } = one;
      this.#installed.setRun(firstPage, pageCount);
      if (latencyUs !== undefined) this.latency.add(latencyUs);
      if (by === "known") continue;
      this.counts.add(by === "around" ? "sweep" : "fault", pageCount);
      const ranges = this.#missingOf(one);
      if (ranges.length === 0) continue;
      for (const range of ranges) this.#noteTaken(one, range);
      missing.push(...ranges);
      taken.push(one);
    }
    return { missing, taken };
  }

  #noteTaken({ firstPage, zero, digests }: TakenPages, { first, count }: PageRange): void {
    this.received.setRun(first, count);
    if (zero) this.zeroPages += count;
    if (digests === undefined) return;
    const at = (first - firstPage) * PAGE_HASH_BYTES;
    this.#given?.setDigests(first, digests.subarray(at, at + count * PAGE_HASH_BYTES));
  }

  /** Notes the parent's digests; false when none were asked for. */
  takeDigests(firstPage: number, digests: Uint8Array): boolean {
    this.#expected?.setDigests(firstPage, digests);
    return this.#expected !== undefined;
  }

  /** Compares what was given with what the parent had; undefined when that was not asked for. */
  compare(): VerifyResult | undefined {
    if (this.#given === undefined || this.#expected === undefined) return undefined;
    const differing = this.#given.differences(this.#expected);
    return { checked: this.pageCount, mismatches: differing.length, firstPages: differing.slice(0, 16) };
  }

  /** Takes over what is there, of an earlier agent or a pre-copy: pages that exist were given, and it is noted which of the others are zero. */
  recover(): void {
    for (const { first, count } of this.#memory.installed()) {
      this.#installed.setRun(first, count);
      this.received.setRun(first, count);
    }
    for (const { first, count } of this.#notes.zeros()) this.received.setRun(first, count);
    this.#given?.setDigests(0, this.#notes.digests());
  }

  /** Others may wait for what has just come, who asked for it elsewhere: a page that is known to be zero is not there yet. */
  #seeToAsked({ first, count }: PageRange): void {
    if (this.#thread === undefined || this.#gate.waiting === 0) return;
    const settled: number[] = [];
    for (let page = first; page < first + count; page += 1) {
      if (!this.#askedElsewhere.has(page)) continue;
      if (!this.#installed.has(page)) this.#installZero(page);
      settled.push(page);
    }
    if (settled.length > 0) this.#thread.settled(settled);
  }

  #missingOf(run: Pick<PageRun, "firstPage" | "pageCount">): PageRange[] {
    const ranges: PageRange[] = [];
    const past = run.firstPage + run.pageCount;
    let missing = 0;
    for (let first = this.received.nextClear(run.firstPage, past); first !== -1;) {
      const next = this.received.nextSet(first, past);
      const end = next === -1 ? past : next;
      ranges.push({ first, count: end - first });
      missing += end - first;
      first = this.received.nextClear(end, past);
    }
    this.duplicates += run.pageCount - missing;
    return ranges;
  }

  #install(range: PageRange, bytes: Uint8Array): void {
    if (this.#given !== undefined) {
      this.#given.setContent(range.first, bytes);
      this.#notes.noteDigests(range.first, this.#given.slice(range.first, range.count));
    }
    this.#memory.install(range.first, bytes);
    this.#installed.setRun(range.first, range.count);
    if (this.#requested.size === 0) return;
    for (let page = range.first; page < range.first + range.count; page += 1) this.#answered(page);
  }

  #learnZero(range: PageRange): void {
    const past = range.first + range.count;
    this.zeroPages += range.count;
    if (this.#given !== undefined) {
      for (let page = range.first; page < past; page += 1) this.#given.setZero(page);
      this.#notes.noteDigests(range.first, this.#given.slice(range.first, range.count));
    }
    this.#notes.noteZero([range]);
    for (const page of this.requested) {
      if (page < range.first || page >= past) continue;
      this.#installZero(page);
      this.#answered(page);
    }
  }

  #installZero(page: number): void {
    this.#memory.installZero({ first: page, count: 1 });
    this.#installed.set(page);
  }

  #answered(page: number): void {
    const sinceUs = this.#requested.get(page);
    if (sinceUs === undefined) return;
    this.#requested.delete(page);
    this.latency.add(this.#clock.nowUs() - sinceUs);
  }
}

/** The bytes of the pages in `range`, which lies inside the run. */
function sliceOf(bytes: Uint8Array, run: PageRun, range: PageRange): Uint8Array {
  const first = range.first - run.firstPage;
  return bytes.subarray(first * PAGE_BYTES, (first + range.count) * PAGE_BYTES);
}
