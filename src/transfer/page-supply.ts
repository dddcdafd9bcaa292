import {
  Bitmap,
  BoundedQueue,
  CALM_FRAME_PAGES,
  MAX_FRAME_HASHES,
  MAX_FRAME_RUNS,
  MAX_RUN_PAGES,
  PAGE_BYTES,
  SWEEP_RUN_PAGES,
} from "../base/index.js";
import { packRun, type Frame, type Origin, type PageRun } from "../wire/index.js";
import type { PageDigests } from "./digests.js";
import type { Instant } from "./instant.js";
import type { Answers, PageRange } from "./ports.js";
import { packPages } from "./pack-pages.js";
import { OriginCounts } from "./progress.js";
import { rangesOf } from "./ranges.js";
import { AfterFaultOrder, type SweepOrder, type SweepSource } from "./sweep-order.js";
import type { PagesAhead } from "./working-set.js";

/** Pages of a hole that take both sides as long to note as it takes to carry a page: a frame has fewer pages with data for telling of a hole. */
const HOLE_PAGES_PER_PAGE = 256;
const NOTHING = new Uint8Array(0);

/**
 * What one child is owed, and the frames that carry it: an answer to a fault at any time; otherwise pushes, then pages that go ahead of the sweep, then
 * the sweep, then digests. It knows no lane; whoever sends its frames tells it when what was sent is lost.
 */
export class PageSupply implements SweepSource {
  /** Pages the child has not reported received. */
  readonly owed: Bitmap;
  /** Pages sent over the present lanes. */
  readonly sent: Bitmap;
  readonly counts = new OriginCounts();
  readonly #instant: Instant;
  readonly #order: SweepOrder;
  readonly #pushes: BoundedQueue<number>;
  /** Pages are read into it and encoded from it before the next frame is asked for, so sending allocates for the frame alone. */
  readonly #scratch = new Uint8Array(CALM_FRAME_PAGES * PAGE_BYTES);
  #digests: PageDigests | undefined;
  #digestCursor = 0;
  readonly #ahead: PagesAhead | undefined;
  #sentAhead = 0;
  zeroPages = 0;
  sweep: boolean;
  /** Pages are sent as lz4 where that saves something. */
  #compress = false;

  constructor(options: { instant: Instant; sweep: boolean; order?: SweepOrder; ahead?: PagesAhead }) {
    this.#instant = options.instant;
    this.#order = options.order ?? new AfterFaultOrder();
    this.sweep = options.sweep;
    this.#ahead = options.ahead;
    this.owed = new Bitmap(options.instant.pageCount, { shared: true });
    this.owed.fill();
    this.sent = new Bitmap(options.instant.pageCount, { shared: true });
    // A page is copied once, so it is queued once.
    this.#pushes = new BoundedQueue(options.instant.pageCount);
  }

  /** What a transfer's progress tells of its pages. `ahead`: the pages that go ahead of the sweep, and those of them that were sent so, if there are any. */
  progress() {
    const { counts, owed, pageCount, zeroPages } = this;
    const ahead = this.#ahead && { ahead: { pages: this.#ahead.pages, sent: this.#sentAhead } };
    return {
      total: pageCount,
      received: pageCount - owed.count,
      fault: counts.fault,
      push: counts.push,
      sweep: counts.sweep,
      zero: zeroPages,
      duplicates: 0,
      ...ahead,
    };
  }

  get pageCount(): number {
    return this.#instant.pageCount;
  }

  /** What another thread sees of it. */
  get shared(): { owed: SharedArrayBuffer; sent: SharedArrayBuffer } {
    return { owed: this.owed.sharedBuffer, sent: this.sent.sharedBuffer };
  }

  hasCopy(page: number): boolean {
    return this.#instant.hasCopy(page);
  }

  get hasCopies(): boolean {
    return this.#instant.copies.pages > 0;
  }

  nextData(page: number): PageRange | undefined {
    return this.#instant.nextData(page);
  }

  /** The digests to tell the child once everything is sent. */
  setDigests(digests: PageDigests): void {
    this.#digests = digests;
  }

  /** Queues a page that was copied because the parent is about to write it. */
  push(page: number): void {
    this.#pushes.offer(page);
  }

  /** The answer to a fault: exactly that page; undefined when it is not owed any more. Encode it before the next call. */
  answer(page: number): Frame | undefined {
    // What the child reported received, to this agent or to an earlier one, it does not need, and its content may be gone.
    if (!this.owed.has(page) || !this.#instant.holds(page)) return undefined;
    const bytes = this.#scratch.subarray(0, PAGE_BYTES);
    this.#instant.read({ first: page, count: 1 }, bytes);
    // Never compressed: the time of a waiting processor is dearer than three kilobytes.
    const run = packRun({ firstPage: page, origin: "fault", bytes, compress: false });
    this.#count(run);
    this.#onAnswered(page);
    return { kind: "pages", runs: [run] };
  }

  /** Another thread has answered. */
  answered({ pages, zeros, around }: Answers): void {
    this.counts.add("fault", pages.length);
    this.zeroPages += zeros;
    for (const page of pages) this.#onAnswered(page);
    for (const { first, count } of around) {
      this.sent.setRun(first, count);
      this.counts.add("sweep", count);
    }
  }

  #onAnswered(page: number): void {
    this.sent.set(page);
    this.#order.onFault(page);
    this.#ahead?.onFault(page);
  }

  /**
   * The next frame for the bulk lane; undefined when there is nothing to send at the moment. Encode it before the next call.
   * @param sweepPages most pages with data of a frame of the sweep, at most 128.
   */
  next(sweepPages: number, options: { compress: boolean }): Frame | undefined {
    this.#compress = options.compress;
    const pushes = this.#takePushes();
    if (pushes.length > 0) return { kind: "pages", runs: pushes };
    const ahead = this.#takeAhead();
    if (ahead.length > 0) return { kind: "pages", runs: ahead };
    if (!this.sweep) return undefined;
    const runs = this.#takeSweep(sweepPages);
    return runs.length > 0 ? { kind: "pages", runs } : this.#nextDigests();
  }

  /** What was sent and is still owed is lost with the lanes; all of it is sent again, copies first. */
  restart(): void {
    this.sent.reset();
    this.#ahead?.restart();
    this.#digestCursor = 0;
    this.#pushes.clear();
    for (const page of this.#instant.copiedPages()) if (this.owed.has(page)) this.#pushes.offer(page);
  }

  /** A page that is owed and can not be given any more; undefined when, as it must be, there is none. */
  firstLost(): number | undefined {
    return this.#instant.firstLost(this.owed);
  }

  /** Of a child that has just told all it has: what it did not name it is owed, even if it, or the agent before its own, has reported it received. */
  oweAllBut(had: Bitmap): void {
    // All it named is not owed any more: when that is all that is not owed, there is nothing to look for.
    if (this.owed.count + had.count === this.pageCount) return;
    for (let page = had.nextClear(0); page !== -1; page = had.nextClear(page + 1)) this.owed.set(page);
  }

  /** The child is loaded. */
  childRuns(): void {
    this.#ahead?.childRuns();
  }

  /** The transfer is over. */
  end(options: { complete: boolean }): void {
    this.#ahead?.end(options);
  }

  /** The child has these pages. */
  received(ranges: readonly PageRange[]): void {
    const settled: PageRange[] = [];
    for (const { first, count } of ranges) {
      const past = first + count;
      for (let page = this.owed.nextSet(first, past); page !== -1;) {
        const clear = this.owed.nextClear(page, past);
        const end = clear === -1 ? past : clear;
        settled.push({ first: page, count: end - page });
        this.owed.clearRun(page, end - page);
        page = this.owed.nextSet(end, past);
      }
    }
    this.#instant.settle(settled);
  }

  #takePushes(): PageRun[] {
    const runs: PageRun[] = [];
    while (runs.length < SWEEP_RUN_PAGES) {
      const page = this.#pushes.take();
      if (page === undefined) break;
      if (!this.owed.has(page) || this.sent.has(page)) continue;
      this.sent.set(page);
      const place = this.#scratch.subarray(runs.length * PAGE_BYTES, (runs.length + 1) * PAGE_BYTES);
      runs.push(...this.#readRuns({ first: page, count: 1 }, "push", place));
    }
    return runs;
  }

  #takeAhead(): PageRun[] {
    if (this.#ahead === undefined) return [];
    const wants = (page: number): boolean => this.owed.has(page) && !this.sent.has(page);
    const pages = this.#ahead.take(SWEEP_RUN_PAGES, wants);
    this.#sentAhead += pages.length;
    const runs: PageRun[] = [];
    let at = 0;
    for (const range of rangesOf(pages)) {
      this.sent.setRun(range.first, range.count);
      const place = this.#scratch.subarray(at * PAGE_BYTES, (at + range.count) * PAGE_BYTES);
      runs.push(...this.#readRuns(range, "sweep", place));
      at += range.count;
    }
    return runs;
  }

  /** As many steps as fit: where pages with data lie scattered, each is short, and a frame of its own would cost more than its pages. */
  #takeSweep(mostPages: number): PageRun[] {
    const runs: PageRun[] = [];
    let room = mostPages;
    let at = 0;
    while (room > 0 && runs.length + room <= MAX_FRAME_RUNS) {
      const step = this.#order.next(this, Math.min(room, MAX_RUN_PAGES));
      if (step === undefined) break;
      const { first: firstPage, count: pageCount } = step.range;
      this.sent.setRun(firstPage, pageCount);
      if (step.kind === "hole") {
        const run: PageRun = { firstPage, pageCount, encoding: "zero", origin: "sweep", data: NOTHING };
        this.#count(run);
        runs.push(run);
        room -= Math.ceil(pageCount / HOLE_PAGES_PER_PAGE);
      } else {
        const place = this.#scratch.subarray(at * PAGE_BYTES, (at + pageCount) * PAGE_BYTES);
        runs.push(...this.#readRuns(step.range, "sweep", place));
        at += pageCount;
        room -= pageCount;
      }
    }
    return runs;
  }

  #readRuns(range: PageRange, origin: Origin, into: Uint8Array): PageRun[] {
    const bytes = into.subarray(0, range.count * PAGE_BYTES);
    this.#instant.read(range, bytes);
    const runs = packPages({ firstPage: range.first, bytes, origin, compress: this.#compress });
    for (const run of runs) this.#count(run);
    return runs;
  }

  #nextDigests(): Frame | undefined {
    if (this.#digests === undefined || this.#digestCursor >= this.pageCount) return undefined;
    const firstPage = this.#digestCursor;
    const count = Math.min(MAX_FRAME_HASHES, this.pageCount - firstPage);
    this.#digestCursor += count;
    return { kind: "hashes", firstPage, digests: this.#digests.slice(firstPage, count) };
  }

  #count(run: PageRun): void {
    this.counts.add(run.origin, run.pageCount);
    if (run.encoding === "zero") this.zeroPages += run.pageCount;
  }
}
