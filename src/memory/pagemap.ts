import { closeSync, openSync, readSync } from "node:fs";
import { Bitmap, codeOf, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";

const ENTRY_BYTES = 8;
/** Bit 57 of an entry: write-protected through userfaultfd (Linux, Documentation/admin-guide/mm/pagemap.rst). It lies in the upper half. */
const WRITE_PROTECTED_UPPER = 1 << (57 - 32);
/** Entries read at once: 512 KiB. */
const ENTRIES_PER_READ = 65_536;

/**
 * Which pages of a mapping are write-protected through userfaultfd, by whatever agent: from /proc/PID/pagemap. About 10 ms per GiB.
 * @throws MemoryError `gone` or `not-permitted`.
 */
export function protectedPagesOf(pid: number, mapping: { address: number; pageCount: number }): Bitmap {
  const { address, pageCount } = mapping;
  const pages = new Bitmap(pageCount);
  const buffer = new Uint32Array(ENTRIES_PER_READ * 2);
  const fd = openPagemap(pid);
  try {
    for (let first = 0; first < pageCount; first += ENTRIES_PER_READ) {
      const count = Math.min(ENTRIES_PER_READ, pageCount - first);
      readEntries(fd, pid, buffer, { first: address / PAGE_BYTES + first, count });
      for (let index = 0; index < count; index += 1) {
        // Entries are in the processor's byte order, which is little endian wherever Ramet runs.
        if (((buffer[index * 2 + 1] as number) & WRITE_PROTECTED_UPPER) !== 0) pages.set(first + index);
      }
    }
  } finally {
    closeSync(fd);
  }
  return pages;
}

function openPagemap(pid: number): number {
  try {
    return openSync(`/proc/${pid}/pagemap`, "r");
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ESRCH") throw new MemoryError("gone", `process ${pid} has ended`);
    const message = `cannot read /proc/${pid}/pagemap (${code}); run the agent as root`;
    throw new MemoryError("not-permitted", message, { cause });
  }
}

function readEntries(
  fd: number,
  pid: number,
  into: Uint32Array,
  entries: { first: number; count: number },
): void {
  const bytes = new Uint8Array(into.buffer, 0, entries.count * ENTRY_BYTES);
  for (let done = 0; done < bytes.length;) {
    const read = readSync(fd, bytes, done, bytes.length - done, entries.first * ENTRY_BYTES + done);
    // A process that has ended has no pages any more.
    if (read === 0) throw new MemoryError("gone", `process ${pid} has ended`);
    done += read;
  }
}
