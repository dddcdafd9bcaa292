import { assert, PAGE_BYTES } from "../base/index.js";
import type { CopyFile, PageRange } from "./ports.js";

/** Temporary copies of pages that the parent was about to write, at most a budget of them. */
export class CopyStore {
  readonly budgetPages: number;
  readonly #file: CopyFile;
  readonly #pages = new Set<number>();
  #peakPages = 0;

  /** Takes over the copies that an earlier agent has left in the file, too. */
  constructor(options: { file: CopyFile; budgetBytes: number }) {
    this.#file = options.file;
    this.budgetPages = Math.floor(options.budgetBytes / PAGE_BYTES);
    assert(this.budgetPages >= 1, `a copy budget holds at least one page, not ${options.budgetBytes} bytes`);
    for (const { first, count } of this.#file.pages()) {
      for (let page = first; page < first + count; page += 1) this.#pages.add(page);
    }
    this.#peakPages = this.#pages.size;
  }

  /** Copies held now, in pages. */
  get pages(): number {
    return this.#pages.size;
  }

  /** The most copies ever held at once, in pages. */
  get peakPages(): number {
    return this.#peakPages;
  }

  get full(): boolean {
    return this.#pages.size >= this.budgetPages;
  }

  has(page: number): boolean {
    return this.#pages.has(page);
  }

  /** The first page at or after `from` that is held; `past` when none before that is. */
  next(from: number, past: number): number {
    if (this.#pages.size === 0) return past;
    let page = from;
    while (page < past && !this.#pages.has(page)) page += 1;
    return page;
  }

  /** Copies a held page to the start of `into`. */
  read(page: number, into: Uint8Array): void {
    assert(this.#pages.has(page), `page ${page} is read from the copies without being there`);
    this.#file.read(page, into);
  }

  /** Keeps the copy of a page; false when the budget is spent or the host has no room. */
  take(page: number, bytes: Uint8Array): boolean {
    assert(!this.#pages.has(page), `page ${page} has one copy at the most`);
    if (this.full || !this.#file.write(page, bytes)) return false;
    this.#pages.add(page);
    this.#peakPages = Math.max(this.#peakPages, this.#pages.size);
    return true;
  }

  /** Drops the copies of pages, each of which must have one. */
  drop(range: PageRange): void {
    for (let page = range.first; page < range.first + range.count; page += 1) {
      assert(this.#pages.delete(page), `page ${page} has no copy to drop`);
    }
    this.#file.drop(range);
  }

  /** The pages that have a copy, in the order they were taken. */
  keys(): IterableIterator<number> {
    return this.#pages.keys();
  }
}
