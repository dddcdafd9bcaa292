import { Bitmap, MAX_RUN_PAGES, PAGE_BYTES, SharedBits } from "../base/index.js";
import type { PageRun } from "../wire/index.js";
import type { Gate } from "./gate.js";
import { packPages } from "./pack-pages.js";
import type { PageRange, SessionShare } from "./ports.js";

/**
 * What lies around a page that was asked for and may go with the answer: the rest of its block, as far as guest memory has it as it was at the instant and it was not
 * sent. Each page is given once over one lane, so that asking for the same page again and again costs no more than that page.
 */
export class AroundPages {
  readonly #gate: Gate;
  readonly #isThere: (page: number) => boolean;
  readonly #sent: SharedBits;
  readonly #pageCount: number;
  readonly #read: (range: PageRange, into: Uint8Array) => void;
  readonly #given: Bitmap;
  /** Pages that may still go with the answers to this request. */
  #room = 0;
  readonly #scratch = new Uint8Array(MAX_RUN_PAGES * PAGE_BYTES);

  constructor(options: {
    gate: Gate;
    share: Pick<SessionShare, "sent">;
    pageCount: number;
    /** Whether guest memory has a page that is owed as it was at the instant. */
    isThere: (page: number) => boolean;
    read: (range: PageRange, into: Uint8Array) => void;
  }) {
    const { gate, share, pageCount, isThere, read } = options;
    this.#gate = gate;
    this.#isThere = isThere;
    this.#pageCount = pageCount;
    this.#read = read;
    this.#sent = new SharedBits(share.sent);
    this.#given = new Bitmap(pageCount);
  }

  /** Begins with the answers to one request, for these pages: what goes with all of them is no more than would go with one, as who asks next waits for all of it. */
  begin(answered: readonly number[]): void {
    for (const page of answered) this.#given.set(page);
    this.#room = Math.min(this.#gate.aroundPages, MAX_RUN_PAGES);
  }

  /** The runs of what goes with the answer for a page, zero pages left to the sweep; encode them before the next call. Errors as `read`. */
  take(page: number): PageRun[] {
    const most = this.#room;
    if (most < 2) return [];
    const first = page - (page % most);
    const past = Math.min(first + most, this.#pageCount);
    const wanted = [...this.#wanted({ first, count: past - first })];
    if (wanted.length > 0) this.#room = 0;
    return wanted.flatMap((range) => this.#runsOf(range));
  }

  #runsOf({ first, count }: PageRange): PageRun[] {
    const at = (first % MAX_RUN_PAGES) * PAGE_BYTES;
    this.#given.setRun(first, count);
    const bytes = this.#scratch.subarray(at, at + count * PAGE_BYTES);
    this.#read({ first, count }, bytes);
    this.#gate.fence();
    // A page whose writer was let through while it was read is not what it was: the session has a copy of it.
    for (let page = first; page < first + count; page += 1) if (!this.#isThere(page)) return [];
    const runs = packPages({ firstPage: first, bytes, origin: "sweep", compress: false });
    return runs.filter(({ encoding }) => encoding !== "zero");
  }

  *#wanted({ first, count }: PageRange): Generator<PageRange> {
    let start: number | undefined;
    for (let page = first; page <= first + count; page += 1) {
      const wanted = page < first + count && this.#wants(page);
      if (wanted) start ??= page;
      else if (start !== undefined) {
        yield { first: start, count: page - start };
        start = undefined;
      }
    }
  }

  #wants(page: number): boolean {
    return !this.#given.has(page) && this.#isThere(page) && !this.#sent.has(page);
  }
}
