import type { Bitmap } from "../base/index.js";
import type { PageSource } from "./ram-file.js";
import type { PageRange } from "./range.js";
import type { Userfault } from "./userfault.js";

/** A parent's memory: read through its file, its writes held up by write protection. Fits `TrackedMemory` of transfer. */
export class TrackedRegion {
  readonly pageCount: number;
  readonly #userfault: Userfault;
  readonly #file: PageSource;

  constructor(options: { userfault: Userfault; file: PageSource }) {
    this.#userfault = options.userfault;
    this.#file = options.file;
    this.pageCount = options.file.pageCount;
  }

  /**
   * Starts tracking: nothing is protected yet. `onWriteFaults` is given pages whose writers wait for `unprotect`; a page is
   * reported again when several writers wait for it.
   * @throws MemoryError `gone`, `no-memory` or `failed`.
   */
  track(onWriteFaults: (pages: readonly number[]) => void): void {
    this.#userfault.start("write-protect", onWriteFaults);
  }

  /**
   * The pages that are held up, by this agent or by one that has ended: what a new agent finds protected still has the content it had when it was
   * protected. Slow with large memories. @throws MemoryError `gone` or `not-permitted`.
   */
  protectedPages(): Bitmap {
    return this.#userfault.protectedPages();
  }

  /**
   * Holds up every later write to these pages, whether they exist or not. Takes time in proportion to the pages: cut
   * large memories into slices.
   * @throws MemoryError `gone`, `no-memory` or `failed`.
   */
  protect(range: PageRange): void {
    this.#userfault.protect(range);
  }

  /**
   * As `protect`, while the caller goes on. Resolves when all these pages are held up, or `release` has ended that. What is unprotected meanwhile may be held up again.
   */
  protectAside(range: PageRange): Promise<void> {
    return this.#userfault.protectAside(range);
  }

  /** Lets writes to these pages through again and wakes whoever waits. Nothing to do when the emulator has ended. */
  unprotect(range: PageRange): void {
    this.#userfault.unprotect(range);
  }

  /** Copies pages into the start of `into`. A hole gives zeros and stays a hole. @throws MemoryError `bad-file`. */
  read(range: PageRange, into: Uint8Array): void {
    this.#file.read(range, into);
  }

  /** The first range of pages at or after `page` that is not a hole; undefined when only holes follow. */
  nextData(page: number): PageRange | undefined {
    return this.#file.nextData(page);
  }

  /** Ends tracking: unprotects and unregisters everything and wakes every waiter. May be called twice. */
  release(): void {
    if (this.#userfault.mode !== "missing") this.#userfault.stop();
  }
}
