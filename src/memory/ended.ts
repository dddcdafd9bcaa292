import { Bitmap } from "../base/index.js";
import { RamFile } from "./ram-file.js";
import type { PageRange } from "./range.js";

/**
 * The memory file of an emulator that has ended, for whoever still needs what is in it. Nobody writes it any more, so no writer is ever held up. Fits
 * `TrackedMemory` of transfer.
 */
export class EndedRegion {
  readonly pageCount: number;
  readonly #file: RamFile;

  private constructor(file: RamFile) {
    this.#file = file;
    this.pageCount = file.pageCount;
  }

  /** Opens the file for reading; its emulator must have ended. @throws MemoryError `bad-file`. */
  static open(ramPath: string): EndedRegion {
    return new EndedRegion(RamFile.open(ramPath));
  }

  /** Copies pages into the start of `into`. A hole gives zeros and stays a hole. @throws MemoryError `bad-file` or `gone`. */
  read(range: PageRange, into: Uint8Array): void {
    this.#file.read(range, into);
  }

  /** The first range of pages at or after `page` that is not a hole; undefined when only holes follow. */
  nextData(page: number): PageRange | undefined {
    return this.#file.nextData(page);
  }

  /** Which pages were held up went with the emulator. */
  protectedPages(): Bitmap {
    return new Bitmap(this.pageCount);
  }

  track(): void {}

  protect(): void {}

  async protectAside(): Promise<void> {}

  unprotect(): void {}

  release(): void {}

  /** Closes the file, which stays. May be called twice. */
  close(): void {
    this.#file.close();
  }
}
