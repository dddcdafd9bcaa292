import { PAGE_BYTES } from "../base/index.js";
import { ERRNO, errnoName, loadNative } from "./native.js";
import type { PageRange } from "./range.js";

/**
 * The first range of pages at or after `page` of a sparse file that is not a hole; undefined when only holes follow (lseek(2),
 * SEEK_DATA and SEEK_HOLE). `fail` makes the error for what the kernel refuses.
 */
export function nextDataOf(
  fd: number,
  page: number,
  fail: (problem: string) => Error,
): PageRange | undefined {
  const native = loadNative();
  const data = native.seek(fd, page * PAGE_BYTES, 0);
  if (data === -ERRNO.ENXIO) return undefined; // only a hole follows
  const hole = data < 0 ? data : native.seek(fd, data, 1);
  if (hole < 0) throw fail(errnoName(hole));
  const first = Math.floor(data / PAGE_BYTES);
  return { first, count: Math.ceil(hole / PAGE_BYTES) - first };
}

/**
 * The first bytes at or after `offset` of any sparse file that are no hole; undefined when only a hole follows. Where the file system knows no holes, all
 * the rest is data.
 */
export function findData(fd: number, offset: number): { start: number; end: number } | undefined {
  const native = loadNative();
  const start = native.seek(fd, offset, 0);
  if (start === -ERRNO.ENXIO) return undefined;
  const end = start < 0 ? start : native.seek(fd, start, 1);
  return end < 0 ? { start: offset, end: Number.MAX_SAFE_INTEGER } : { start, end };
}
