import { closeSync, constants, openSync, writeSync } from "node:fs";
import { assert, codeOf, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";
import { errnoName, loadNative } from "./native.js";
import { assertRange, type PageRange } from "./range.js";

/** A child's memory before the child runs, written through its file: what the emulator has mapped shows it at once. Fits `WritableMemory` of transfer. */
export class WritableRegion {
  readonly pageCount: number;
  readonly #path: string;
  readonly #fd: number;
  #closed = false;

  /** Opens the memory file for writing. @throws MemoryError `bad-file`. */
  constructor(options: { path: string; pageCount: number }) {
    this.#path = options.path;
    this.pageCount = options.pageCount;
    try {
      this.#fd = openSync(options.path, constants.O_WRONLY | constants.O_NOFOLLOW);
    } catch (cause) {
      throw new MemoryError("bad-file", `cannot write memory file ${this.#path} (${codeOf(cause)})`, {
        cause,
      });
    }
  }

  /** Writes consecutive whole pages. @throws MemoryError `no-memory` when the host cannot hold them, `bad-file`. */
  write(firstPage: number, bytes: Uint8Array): void {
    assert(!this.#closed, "memory is written while its file is open");
    assert(bytes.length % PAGE_BYTES === 0, `whole pages are written, not ${bytes.length} bytes`);
    assertRange({ first: firstPage, count: bytes.length / PAGE_BYTES }, this.pageCount);
    for (let done = 0; done < bytes.length;) {
      try {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, firstPage * PAGE_BYTES + done);
      } catch (cause) {
        const code = codeOf(cause);
        const full = code === "ENOSPC" || code === "ENOMEM" || code === "EDQUOT";
        const message = full
          ? `the host has no room for a page of ${this.#path}`
          : `cannot write memory file ${this.#path} (${code})`;
        throw new MemoryError(full ? "no-memory" : "bad-file", message, { cause });
      }
    }
  }

  /** Makes pages missing again and gives their room back. @throws MemoryError `bad-file`. */
  discard(range: PageRange): void {
    assert(!this.#closed, "memory is discarded while its file is open");
    assertRange(range, this.pageCount);
    const result = loadNative().punch(this.#fd, range.first * PAGE_BYTES, range.count * PAGE_BYTES);
    if (result < 0) {
      throw new MemoryError("bad-file", `cannot discard pages of ${this.#path} (${errnoName(result)})`);
    }
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
