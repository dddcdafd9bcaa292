import { Bitmap } from "../base/index.js";
import type { PageRange } from "./ports.js";

/** What the order of the sweep is chosen from. */
export interface SweepSource {
  readonly pageCount: number;
  /** Pages the child has not reported received. */
  readonly owed: Bitmap;
  /** Pages sent over the present connection; the sweep does not send them again. */
  readonly sent: Bitmap;
  hasCopy(page: number): boolean;
  /** Whether any page has a copy. */
  readonly hasCopies: boolean;
  nextData(page: number): PageRange | undefined;
}

/** What the sweep sends next: pages with content, or a stretch of holes to be told of in one run. */
export type SweepStep = { kind: "data" | "hole"; range: PageRange };

/** Holes told of in one step: more would keep both sides from their faults while they note each page. */
const MAX_HOLE_PAGES = 16384;

/** Decides which pages the sweep sends next; replaceable without touching the session. */
export interface SweepOrder {
  /** The next step, of so many pages with data at the most, or undefined when there is nothing left to sweep at the moment. */
  next(source: SweepSource, mostPages: number): SweepStep | undefined;
  /** The child just faulted on this page: what lies around it is likely to be wanted soon. */
  onFault(page: number): void;
}

/** Goes upwards from the page faulted last, and round again until nothing is left. */
export class AfterFaultOrder implements SweepOrder {
  #cursor = 0;
  /** Pages the memory was asked about, and those of them that are no holes. */
  #asked: Bitmap | undefined;
  #data: Bitmap | undefined;

  onFault(page: number): void {
    this.#cursor = page + 1;
  }

  next(source: SweepSource, mostPages: number): SweepStep | undefined {
    const first = this.#firstUnsent(source);
    if (first === -1) return undefined;
    const dataFirst = this.#dataAtOrAfter(source, first);
    const isHole = dataFirst === undefined || dataFirst > first;
    const kind = isHole ? "hole" : "data";
    const most = Math.min(source.pageCount, first + (isHole ? MAX_HOLE_PAGES : mostPages));
    const bound = isHole ? Math.min(most, dataFirst ?? most) : this.#endOfData(first, most);
    const past = this.#endOfWanted(source, first, bound);
    this.#cursor = past;
    return { kind, range: { first, count: past - first } };
  }

  #firstUnsent(source: SweepSource): number {
    const start = this.#cursor < source.pageCount ? this.#cursor : 0;
    const above = this.#scan(source, start, source.pageCount);
    return above !== -1 ? above : this.#scan(source, 0, start);
  }

  #scan(source: SweepSource, from: number, past: number): number {
    for (let page = source.owed.nextSet(from); page !== -1 && page < past;) {
      if (this.#wants(source, page)) return page;
      const unsent = source.sent.nextClear(page + 1);
      if (unsent === -1) return -1;
      page = source.owed.nextSet(unsent);
    }
    return -1;
  }

  #wants(source: SweepSource, page: number): boolean {
    return source.owed.has(page) && !source.sent.has(page) && !source.hasCopy(page);
  }

  /**
   * First page with data at or after `page`. The memory is asked once about each stretch and both answers are kept: a page that was a hole is one for
   * this purpose for good, since whoever fills it is found among the copies.
   */
  #dataAtOrAfter(source: SweepSource, page: number): number | undefined {
    this.#asked ??= new Bitmap(source.pageCount);
    this.#data ??= new Bitmap(source.pageCount);
    for (let at = page; at < source.pageCount;) {
      if (!this.#asked.has(at)) {
        const range = source.nextData(at) ?? { first: source.pageCount, count: 0 };
        this.#asked.setRun(at, range.first + range.count - at);
        this.#data.setRun(range.first, range.count);
        return range.count === 0 ? undefined : range.first;
      }
      if (this.#data.has(at)) return at;
      const data = this.#data.nextSet(at);
      const unasked = this.#asked.nextClear(at);
      if (data === -1 && unasked === -1) return undefined;
      at = data === -1 || (unasked !== -1 && unasked < data) ? unasked : data;
    }
    return undefined;
  }

  #endOfData(page: number, bound: number): number {
    const hole = this.#data?.nextClear(page + 1, bound) ?? -1;
    return hole === -1 ? bound : hole;
  }

  /** Where the pages end that are wanted as `first` is. */
  #endOfWanted(source: SweepSource, first: number, bound: number): number {
    const notOwed = source.owed.nextClear(first, bound);
    const sent = source.sent.nextSet(first, notOwed === -1 ? bound : notOwed);
    const past = sent !== -1 ? sent : notOwed !== -1 ? notOwed : bound;
    if (!source.hasCopies) return past;
    for (let page = first; page < past; page += 1) if (source.hasCopy(page)) return page;
    return past;
  }
}
