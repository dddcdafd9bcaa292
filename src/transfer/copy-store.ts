import { assert, PAGE_BYTES } from "../base/index.js";

const SLAB_PAGES = 256;

/**
 * Temporary copies of pages that the parent was about to write, at most a budget of them. Slots come from slabs of 1 MiB that are
 * kept for the life of the store, so a busy parent causes no allocation per page.
 */
export class CopyStore {
  readonly budgetPages: number;
  readonly #slabs: Uint8Array[] = [];
  readonly #freeSlots: number[] = [];
  readonly #slotOf = new Map<number, number>();
  #peakPages = 0;

  constructor(budgetBytes: number) {
    this.budgetPages = Math.floor(budgetBytes / PAGE_BYTES);
    assert(this.budgetPages >= 1, `a copy budget holds at least one page, not ${budgetBytes} bytes`);
  }

  /** Copies held now, in pages. */
  get pages(): number {
    return this.#slotOf.size;
  }

  /** The most copies ever held at once, in pages. */
  get peakPages(): number {
    return this.#peakPages;
  }

  get full(): boolean {
    return this.#slotOf.size >= this.budgetPages;
  }

  has(page: number): boolean {
    return this.#slotOf.has(page);
  }

  /** The copy of a page; undefined when there is none. The bytes are valid until the copy is dropped. */
  get(page: number): Uint8Array | undefined {
    const slot = this.#slotOf.get(page);
    return slot === undefined ? undefined : this.#bytesOf(slot);
  }

  /** Makes room for the copy of a page and returns it, to be filled by the caller at once. The store must not be full. */
  take(page: number): Uint8Array {
    assert(!this.full, "a copy is only taken while the budget has room");
    assert(!this.#slotOf.has(page), `page ${page} has one copy at the most`);
    if (this.#freeSlots.length === 0) this.#addSlab();
    const slot = this.#freeSlots.pop() as number;
    this.#slotOf.set(page, slot);
    this.#peakPages = Math.max(this.#peakPages, this.#slotOf.size);
    return this.#bytesOf(slot);
  }

  /** Drops the copy of a page and says whether there was one. */
  drop(page: number): boolean {
    const slot = this.#slotOf.get(page);
    if (slot === undefined) return false;
    this.#slotOf.delete(page);
    this.#freeSlots.push(slot);
    return true;
  }

  /** The pages that have a copy, in the order they were taken. */
  keys(): IterableIterator<number> {
    return this.#slotOf.keys();
  }

  #addSlab(): void {
    const base = this.#slabs.length * SLAB_PAGES;
    this.#slabs.push(new Uint8Array(SLAB_PAGES * PAGE_BYTES));
    for (let slot = SLAB_PAGES - 1; slot >= 0; slot -= 1) this.#freeSlots.push(base + slot);
  }

  #bytesOf(slot: number): Uint8Array {
    const slab = this.#slabs[Math.floor(slot / SLAB_PAGES)] as Uint8Array;
    const offset = (slot % SLAB_PAGES) * PAGE_BYTES;
    return slab.subarray(offset, offset + PAGE_BYTES);
  }
}
