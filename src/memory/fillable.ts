import { closeSync } from "node:fs";
import { assert } from "../base/index.js";
import type { RamFile } from "./ram-file.js";
import type { PageRange } from "./range.js";
import type { SharedFaults, Userfault } from "./userfault.js";

/** A child's memory, filled while the child runs on it. Fits `FillableMemory` of transfer. */
export class FillableRegion {
  readonly pageCount: number;
  readonly #userfault: Userfault;
  readonly #file: RamFile;
  #duplicates = 0;

  constructor(options: { userfault: Userfault; file: RamFile }) {
    this.#userfault = options.userfault;
    this.#file = options.file;
    this.pageCount = options.userfault.pageCount;
  }

  /** Pages that were to be installed and existed already. They were left as they were. */
  get duplicates(): number {
    return this.#duplicates;
  }

  /**
   * Starts filling: from here on a touch of a page that was never installed waits, and is reported, again when several
   * processors wait for it. Pages that exist already count as installed.
   * @throws MemoryError `gone`, `no-memory` or `failed`.
   */
  fill(onMissingFaults: (pages: readonly number[]) => void): void {
    this.#userfault.start("missing", onMissingFaults);
  }

  /**
   * Starts filling as `fill` does, but another thread reports the faults and installs pages as well, with what this returns (`JoinedFilling`). It has to have
   * stopped before `release`. Errors as `fill`.
   */
  fillShared(): SharedFaults {
    const shared = this.#userfault.share();
    try {
      this.#userfault.register("missing");
      return shared;
    } catch (error) {
      closeSync(shared.descriptor);
      throw error;
    }
  }

  /** Holds up whoever touches a page that does not exist, until filling starts. Errors as `fill`. */
  hold(): void {
    this.#userfault.register("missing");
    this.#userfault.leave();
  }

  /** Stops filling, which may start again: whoever touches a page that was never installed waits until then. Another thread has to have stopped before. */
  leave(): void {
    assert(this.#userfault.mode !== "write-protect", "memory that is tracked is not filled");
    this.#userfault.leave();
  }

  /** The pages that exist, ascending: all that was installed, by whatever agent. @throws MemoryError `bad-file` or `gone`. */
  *installed(): Generator<PageRange> {
    for (let page = 0; page < this.pageCount;) {
      const data = this.#file.nextData(page);
      if (data === undefined) return;
      yield data;
      page = data.first + data.count;
    }
  }

  /**
   * Installs consecutive pages from `bytes` (whole pages) and wakes whoever waits for them.
   * @throws MemoryError `no-memory` when the host cannot hold the page, `gone` when the emulator's process has ended.
   */
  install(firstPage: number, bytes: Uint8Array): void {
    this.#duplicates += this.#userfault.copy(firstPage, bytes);
  }

  /** Installs zero pages and wakes whoever waits for them. They take room on the host. Errors as `install`. */
  installZero(range: PageRange): void {
    this.#duplicates += this.#userfault.zero(range);
  }

  /** Wakes whoever waits for pages that are already there. */
  wake(range: PageRange): void {
    this.#userfault.wake(range);
  }

  /** Ends filling: a page never installed reads as zeros from now on. May be called twice. */
  release(): void {
    if (this.#userfault.mode !== "write-protect") this.#userfault.stop();
  }
}
