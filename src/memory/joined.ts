import { closeSync, readSync } from "node:fs";
import { assert, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";
import type { PageRange } from "./range.js";
import { Userfault, type SharedFaults } from "./userfault.js";

/**
 * The filling of a child's memory that another thread has started (`FillableRegion.fillShared`): this one reports the faults, and both install pages. What the
 * other one has installed meanwhile stays as it is.
 */
export class JoinedFilling {
  readonly pageCount: number;
  readonly #userfault: Userfault;

  /** Takes over the descriptor. */
  constructor({ pid, descriptor, address, areaEnds }: SharedFaults) {
    this.#userfault = new Userfault({ pid, fd: descriptor, mapping: { address, areaEnds } });
    this.pageCount = this.#userfault.pageCount;
  }

  /** Reports touches of pages that were never installed. @throws MemoryError `failed`. */
  fill(onMissingFaults: (pages: readonly number[]) => void): void {
    this.#userfault.watch("missing", onMissingFaults);
  }

  /** Installs consecutive pages. Errors as `FillableRegion.install`. */
  install(firstPage: number, bytes: Uint8Array): void {
    this.#userfault.copy(firstPage, bytes);
  }

  /** Installs zero pages. Errors as `FillableRegion.install`. */
  installZero(range: PageRange): void {
    this.#userfault.zero(range);
  }

  wake(range: PageRange): void {
    this.#userfault.wake(range);
  }

  /** Reports no more faults and closes its descriptor; the memory stays registered. May be called twice. */
  close(): void {
    this.#userfault.close();
  }
}

/** A guest's memory file in another thread than the one that has opened it. */
export class JoinedFile {
  readonly #descriptor: number;
  #closed = false;

  /** Takes over the descriptor. */
  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** Copies consecutive pages to the start of `into`. A hole gives zeros and stays a hole. @throws MemoryError `bad-file`. */
  read({ first, count }: PageRange, into: Uint8Array): void {
    assert(!this.#closed, "a memory file is read while it is open");
    const bytes = count * PAGE_BYTES;
    const read = readSync(this.#descriptor, into, 0, bytes, first * PAGE_BYTES);
    if (read !== bytes) throw new MemoryError("bad-file", `page ${first} lies outside its memory file`);
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
  }
}
