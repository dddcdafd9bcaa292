import { SWEEP_RUN_PAGES, type Bitmap } from "../base/index.js";
import type { PageRange } from "./ports.js";

/** What the order of the sweep is chosen from. */
export interface SweepSource {
  readonly pageCount: number;
  /** Pages the child has not reported received. */
  readonly owed: Bitmap;
  /** Pages sent over the present connection; the sweep does not send them again. */
  readonly sent: Bitmap;
  hasCopy(page: number): boolean;
  nextData(page: number): PageRange | undefined;
}

/** What the sweep sends next: pages with content, or a stretch of holes to be told of in one run. */
export type SweepStep = { kind: "data" | "hole"; range: PageRange };

/** Decides which pages the sweep sends next; replaceable without touching the session. */
export interface SweepOrder {
  /** The next step, or undefined when there is nothing left to sweep at the moment. */
  next(source: SweepSource): SweepStep | undefined;
  /** The child just faulted on this page: what lies around it is likely to be wanted soon. */
  onFault(page: number): void;
}

/** Goes upwards from the page faulted last, and round again until nothing is left. */
export class AfterFaultOrder implements SweepOrder {
  #cursor = 0;
  #data: PageRange | undefined;

  onFault(page: number): void {
    this.#cursor = page + 1;
  }

  next(source: SweepSource): SweepStep | undefined {
    const first = this.#firstUnsent(source);
    if (first === -1) return undefined;
    const dataFirst = this.#dataAtOrAfter(source, first);
    const isHole = dataFirst === undefined || dataFirst > first;
    const kind = isHole ? "hole" : "data";
    const bound = isHole ? (dataFirst ?? source.pageCount) : this.#endOf(first, source.pageCount);
    const longest = isHole ? bound : Math.min(bound, first + SWEEP_RUN_PAGES);
    let past = first + 1;
    while (past < longest && this.#wants(source, past)) past += 1;
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

  /** First page with data at or after `page`, asking the memory only when the range known last does not tell. */
  #dataAtOrAfter(source: SweepSource, page: number): number | undefined {
    const known = this.#data;
    if (known === undefined || page < known.first || page >= known.first + known.count)
      this.#data = source.nextData(page);
    return this.#data === undefined ? undefined : Math.max(this.#data.first, page);
  }

  #endOf(page: number, pageCount: number): number {
    return this.#data === undefined ? pageCount : Math.max(this.#data.first + this.#data.count, page + 1);
  }
}
