import { Bitmap, PAGE_BYTES, PAGE_HASH_BYTES } from "../../../src/base/index.js";
import type { ChildNotes, CopyFile, PageRange } from "../../../src/transfer/index.js";

/** Temporary copies in a map, which outlives the simulated agent. */
export class SimulatedCopies implements CopyFile {
  readonly #pages = new Map<number, Uint8Array>();
  /** Most pages the simulated host has room for. */
  room = Infinity;

  write(page: number, bytes: Uint8Array): boolean {
    if (this.#pages.size >= this.room) return false;
    this.#pages.set(page, Uint8Array.from(bytes.subarray(0, PAGE_BYTES)));
    return true;
  }

  read(page: number, into: Uint8Array): void {
    into.set(this.#pages.get(page) as Uint8Array);
  }

  drop({ first, count }: PageRange): void {
    for (let page = first; page < first + count; page += 1) this.#pages.delete(page);
  }

  /** The file is removed. */
  clear(): void {
    this.#pages.clear();
  }

  *pages(): Generator<PageRange> {
    for (const first of [...this.#pages.keys()].toSorted((left, right) => left - right))
      yield { first, count: 1 };
  }
}

/** A child's notes in memory, which outlive the simulated agent. */
export class SimulatedNotes implements ChildNotes {
  readonly #zeros: Bitmap;
  readonly #digests: Uint8Array;

  constructor(pageCount: number) {
    this.#zeros = new Bitmap(pageCount);
    this.#digests = new Uint8Array(pageCount * PAGE_HASH_BYTES);
  }

  noteZero(ranges: readonly PageRange[]): void {
    for (const { first, count } of ranges) this.#zeros.setRun(first, count);
  }

  zeros(): Iterable<PageRange> {
    return this.#zeros.runs();
  }

  noteDigests(firstPage: number, digests: Uint8Array): void {
    this.#digests.set(digests, firstPage * PAGE_HASH_BYTES);
  }

  digests(): Uint8Array {
    return this.#digests.slice();
  }
}
