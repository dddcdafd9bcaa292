import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { assert, codeOf, MAX_MEMORY_PAGES, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";
import { errnoName, loadNative } from "./native.js";
import { assertRange, type PageRange } from "./range.js";
import { nextDataOf } from "./sparse.js";

/** What tmpfs answers when it is full, and a memory cgroup when its limit is reached. */
const NO_ROOM: readonly string[] = ["ENOSPC", "ENOMEM", "EDQUOT"];

/**
 * Copies of single pages in a sparse file on tmpfs, each at its own page's place, so that the file needs no index and outlives the process
 * that wrote it. Fits `CopyFile` of transfer.
 */
export class CopiesFile {
  readonly path: string;
  readonly pageCount: number;
  readonly #fd: number;
  #closed = false;

  private constructor(path: string, fd: number, pageCount: number) {
    this.path = path;
    this.#fd = fd;
    this.pageCount = pageCount;
  }

  /** Makes an empty file for `pageCount` pages in the place of any older one. @throws MemoryError `bad-file`. */
  static create(path: string, pageCount: number): CopiesFile {
    assert(pageCount > 0 && pageCount <= MAX_MEMORY_PAGES, `copies are of 1 to ${MAX_MEMORY_PAGES} pages`);
    const fd = openFile(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
    );
    ftruncateSync(fd, pageCount * PAGE_BYTES);
    return new CopiesFile(path, fd, pageCount);
  }

  /** Opens what an earlier process kept. @throws MemoryError `bad-file` when it is not there or not for `pageCount` pages. */
  static open(path: string, pageCount: number): CopiesFile {
    const fd = openFile(path, constants.O_RDWR | constants.O_NOFOLLOW);
    const { size } = fstatSync(fd);
    if (size === pageCount * PAGE_BYTES) return new CopiesFile(path, fd, pageCount);
    closeSync(fd);
    const message = `copies file ${path} has ${size} bytes, not ${pageCount * PAGE_BYTES}`;
    throw new MemoryError("bad-file", message);
  }

  /** Keeps a page (4096 bytes). False when the host has no room; nothing is kept then. @throws MemoryError `bad-file`. */
  write(page: number, bytes: Uint8Array): boolean {
    this.#requireOpen();
    assertRange({ first: page, count: 1 }, this.pageCount);
    assert(bytes.length === PAGE_BYTES, `a page has ${PAGE_BYTES} bytes, not ${bytes.length}`);
    try {
      // tmpfs takes a whole page or none of it.
      return writeSync(this.#fd, bytes, 0, PAGE_BYTES, page * PAGE_BYTES) === PAGE_BYTES;
    } catch (cause) {
      if (NO_ROOM.includes(codeOf(cause))) return false;
      throw new MemoryError("bad-file", `cannot write copies file ${this.path} (${codeOf(cause)})`, {
        cause,
      });
    }
  }

  /** Copies a kept page to the start of `into`. @throws MemoryError `bad-file`. */
  read(page: number, into: Uint8Array): void {
    this.#requireOpen();
    const read = readSync(this.#fd, into, 0, PAGE_BYTES, page * PAGE_BYTES);
    if (read !== PAGE_BYTES) throw new MemoryError("bad-file", `copies file ${this.path} has become shorter`);
  }

  /** Forgets pages and gives their room back; nothing to do for pages that are not kept. @throws MemoryError `bad-file`. */
  drop(range: PageRange): void {
    this.#requireOpen();
    assertRange(range, this.pageCount);
    const result = loadNative().punch(this.#fd, range.first * PAGE_BYTES, range.count * PAGE_BYTES);
    if (result < 0) throw this.#bad("give back room of", errnoName(result));
  }

  /** The pages that are kept, ascending. @throws MemoryError `bad-file`. */
  *pages(): Generator<PageRange> {
    for (let page = 0; page < this.pageCount;) {
      this.#requireOpen();
      const data = nextDataOf(this.#fd, page, (problem) => this.#bad("search", problem));
      if (data === undefined) return;
      yield data;
      page = data.first + data.count;
    }
  }

  /** Closes the file, which stays for a later process. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  /** Closes and removes the file. May be called twice. */
  remove(): void {
    this.close();
    rmSync(this.path, { force: true });
  }

  #bad(doing: string, problem: string): MemoryError {
    return new MemoryError("bad-file", `cannot ${doing} copies file ${this.path} (${problem})`);
  }

  #requireOpen(): void {
    if (this.#closed) throw new MemoryError("gone", `copies file ${this.path} has been closed`);
  }
}

function openFile(path: string, flags: number): number {
  try {
    return openSync(path, flags, 0o600);
  } catch (cause) {
    throw new MemoryError("bad-file", `cannot open copies file ${path} (${codeOf(cause)})`, { cause });
  }
}
