import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { assert, codeOf, MAX_MEMORY_PAGES, PAGE_BYTES } from "../base/index.js";
import { takeDescriptor } from "./descriptors.js";
import { MemoryError } from "./errors.js";
import { assertRange, type PageRange } from "./range.js";
import { nextDataOf } from "./sparse.js";

/** Where a guest's memory can be read without touching it as the guest would. */
export interface PageSource {
  readonly pageCount: number;
  /** Copies pages into the start of `into`. */
  read(range: PageRange, into: Uint8Array): void;
  /** The first range of pages at or after `page` that may hold anything but zeros; undefined when there is none. */
  nextData(page: number): PageRange | undefined;
  /** May be called twice. */
  close(): void;
}

/**
 * The tmpfs file that is a guest's memory. It is read with pread(2) and never mapped: reading a hole through a mapping
 * would allocate the page, and a page that exists is not missing, so that its fault would never be reported.
 */
export class RamFile implements PageSource {
  readonly path: string;
  readonly dev: number;
  readonly ino: number;
  readonly pageCount: number;
  readonly #fd: number;
  #closed = false;

  private constructor(path: string, fd: number, stat: { dev: number; ino: number; size: number }) {
    this.path = path;
    this.dev = stat.dev;
    this.ino = stat.ino;
    this.pageCount = stat.size / PAGE_BYTES;
    this.#fd = fd;
  }

  /** Opens the file for reading. @throws MemoryError `bad-file`. */
  static open(path: string): RamFile {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY);
    } catch (cause) {
      throw new MemoryError("bad-file", `cannot open memory file ${path} (${codeOf(cause)})`, { cause });
    }
    const stat = fstatSync(fd);
    if (stat.size > 0 && stat.size % PAGE_BYTES === 0 && stat.size / PAGE_BYTES <= MAX_MEMORY_PAGES) {
      return new RamFile(path, fd, stat);
    }
    closeSync(fd);
    const limitBytes = MAX_MEMORY_PAGES * PAGE_BYTES;
    throw new MemoryError(
      "bad-file",
      `memory file ${path} must be 4096 to ${limitBytes} bytes in whole pages, not ${stat.size}`,
    );
  }

  /** Copies pages into the start of `into`. A hole gives zeros and stays a hole. @throws MemoryError `bad-file` or `gone`. */
  read(range: PageRange, into: Uint8Array): void {
    this.#requireOpen();
    assertRange(range, this.pageCount);
    const length = range.count * PAGE_BYTES;
    assert(into.length >= length, `${range.count} pages do not fit into ${into.length} bytes`);
    const start = range.first * PAGE_BYTES;
    for (let done = 0; done < length;) {
      const read = readSync(this.#fd, into, done, length - done, start + done);
      if (read === 0) throw new MemoryError("bad-file", `memory file ${this.path} has become shorter`);
      done += read;
    }
  }

  /** The first range of pages at or after `page` that is not a hole (lseek(2), SEEK_DATA and SEEK_HOLE). */
  nextData(page: number): PageRange | undefined {
    this.#requireOpen();
    if (page >= this.pageCount) return undefined;
    return nextDataOf(
      this.#fd,
      page,
      (problem) => new MemoryError("bad-file", `cannot search memory file ${this.path} (${problem})`),
    );
  }

  /** Another descriptor of the file, for another thread, which closes it (`JoinedFile`). @throws MemoryError `gone` or `failed`. */
  share(): number {
    this.#requireOpen();
    return takeDescriptor(process.pid, this.#fd);
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  /** The number of a closed descriptor soon belongs to another file, whose content must not pass for memory. */
  #requireOpen(): void {
    if (this.#closed) throw new MemoryError("gone", `memory file ${this.path} has been closed`);
  }
}
