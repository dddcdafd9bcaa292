import { closeSync, openSync, readSync } from "node:fs";
import { assert, codeOf, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";
import type { Mapping } from "./mapping.js";
import { loadNative } from "./native.js";
import type { PageSource } from "./ram-file.js";
import { assertRange, type PageRange } from "./range.js";

/** One entry of /proc/PID/pagemap for each page (Linux, Documentation/admin-guide/mm/pagemap.rst), of which the upper half is looked at. */
const ENTRY_BYTES = 8;
const PRESENT_UPPER = 1 << (63 - 32);
const SWAPPED_UPPER = 1 << (62 - 32);
/** A page of a file, as a private mapping has it until it is written to. */
const FILE_UPPER = 1 << (61 - 32);
/** Entries looked at in one read. */
const MAX_ENTRIES = 512;
/** Pages the addon separates in one call. */
const MAX_SEPARATED_PAGES = 256;

/**
 * The memory of an emulator that has mapped another guest's memory file privately: what it has not written, and nobody has separated, is that file's content;
 * the rest is its own and in no file. Read through /proc/PID/mem, so it ends with the process.
 */
export class PrivateMemory implements PageSource {
  readonly pageCount: number;
  readonly #pid: number;
  readonly #address: number;
  readonly #content: number;
  readonly #pagemap: number;
  readonly #entries = new Uint32Array(MAX_ENTRIES * 2);
  #closed = false;

  /** @throws MemoryError `gone` or `not-permitted`. */
  constructor(options: { pid: number; mapping: Mapping }) {
    this.#pid = options.pid;
    this.#address = options.mapping.address;
    this.pageCount = options.mapping.areaEnds.at(-1) ?? 0;
    this.#content = openOf(options.pid, "mem");
    try {
      this.#pagemap = openOf(options.pid, "pagemap");
    } catch (error) {
      closeSync(this.#content);
      throw error;
    }
  }

  /**
   * Gives the process pages of its own, with the content it sees there now, where it has none; what it has itself written stays. A write of the process that
   * comes at the same moment finds the page either before or after. A process that has ended sees nothing any more, so it lacks nothing.
   * @returns false when it could not be given all of them: there is no more memory, or it may not have more.
   */
  separate(range: PageRange): boolean {
    if (this.#closed) return false;
    assertRange(range, this.pageCount);
    for (let done = 0; done < range.count; done += MAX_SEPARATED_PAGES) {
      const address = this.#address + (range.first + done) * PAGE_BYTES;
      const length = Math.min(MAX_SEPARATED_PAGES, range.count - done) * PAGE_BYTES;
      if (loadNative().separate(this.#pid, address, length) < 0) return this.#hasEnded();
    }
    return this.#count(range, isOwn) === range.count || this.#hasEnded();
  }

  /**
   * Whether nobody has the memory any more. The descriptor was opened on the memory and not on the process, whose first thread may end before the
   * others: what is read of it is nothing when its last user has gone (Linux, fs/proc/task_mmu.c), and something of a mapped address before.
   */
  #hasEnded(): boolean {
    const entry = new Uint8Array(this.#entries.buffer, 0, ENTRY_BYTES);
    return readOf(this.#pagemap, entry, (this.#address / PAGE_BYTES) * ENTRY_BYTES) === 0;
  }

  /** Pages that are the process's own: it wrote them, or they were separated. Takes about 10 ms per GiB. @throws MemoryError `gone`. */
  get ownPages(): number {
    if (this.#closed) throw new MemoryError("gone", `the memory of process ${this.#pid} has been closed`);
    return this.#count({ first: 0, count: this.pageCount }, isOwn);
  }

  /** Copies pages as the process sees them. @throws MemoryError `gone`. */
  read(range: PageRange, into: Uint8Array): void {
    if (this.#closed) throw new MemoryError("gone", `the memory of process ${this.#pid} has been closed`);
    assertRange(range, this.pageCount);
    const length = range.count * PAGE_BYTES;
    assert(into.length >= length, `${range.count} pages do not fit into ${into.length} bytes`);
    const start = this.#address + range.first * PAGE_BYTES;
    for (let done = 0; done < length;) {
      const read = readOf(this.#content, into.subarray(done, length), start + done);
      if (read === 0) throw new MemoryError("gone", `process ${this.#pid} has ended`);
      done += read;
    }
  }

  /** Which pages hold nothing but zeros is not to be seen from outside. */
  nextData(page: number): PageRange | undefined {
    return page >= this.pageCount ? undefined : { first: page, count: this.pageCount - page };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#content);
    closeSync(this.#pagemap);
  }

  /** How many pages of a range are as `is` says; what cannot be read is not. */
  #count(range: PageRange, is: (upper: number) => boolean): number {
    const end = range.first + range.count;
    let found = 0;
    for (let page = range.first; page < end;) {
      const count = Math.min(MAX_ENTRIES, end - page);
      const bytes = new Uint8Array(this.#entries.buffer, 0, count * ENTRY_BYTES);
      const read = readOf(this.#pagemap, bytes, (this.#address / PAGE_BYTES + page) * ENTRY_BYTES);
      if (read < bytes.length) return found;
      // Entries are in the processor's byte order, which is little endian wherever Ramet runs.
      for (let index = 0; index < count; index += 1)
        if (is(this.#entries[index * 2 + 1] as number)) found += 1;
      page += count;
    }
    return found;
  }
}

function isOwn(upper: number): boolean {
  return (upper & SWAPPED_UPPER) !== 0 || ((upper & PRESENT_UPPER) !== 0 && (upper & FILE_UPPER) === 0);
}

/** Bytes read; 0 when the process has no memory any more. */
function readOf(fd: number, into: Uint8Array, offset: number): number {
  try {
    return readSync(fd, into, 0, into.length, offset);
  } catch {
    return 0;
  }
}

function openOf(pid: number, name: string): number {
  try {
    return openSync(`/proc/${pid}/${name}`, "r");
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ESRCH") throw new MemoryError("gone", `process ${pid} has ended`);
    const message = `cannot read /proc/${pid}/${name} (${code}); run the agent as root`;
    throw new MemoryError("not-permitted", message, { cause });
  }
}
