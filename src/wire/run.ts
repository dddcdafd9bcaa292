import { assert, MAX_RUN_PAGES, PAGE_BYTES } from "../base/index.js";
import { compressBlock, decompressBlock } from "./lz4.js";
import type { Origin } from "./numbers.js";
import type { PageRun } from "./pages.js";

const ZEROS = Buffer.alloc(MAX_RUN_PAGES * PAGE_BYTES);
const NOTHING = new Uint8Array(0);
/** Longer runs are compressed only when one of the pages tried first becomes less. */
const MOST_UNTRIED_PAGES = 8;

/** True when all bytes are zero. It ends at the first that is not; 64 KiB of zeros take less than 1 µs. */
export function isZero(bytes: Uint8Array): boolean {
  assert(bytes.length <= ZEROS.length, `${bytes.length} bytes are more than a run holds`);
  return Buffer.compare(bytes, bytes.length === ZEROS.length ? ZEROS : ZEROS.subarray(0, bytes.length)) === 0;
}

/**
 * Makes a run of the content of consecutive pages: a zero run when all of it is zero, LZ4 when asked for and when that
 * saves at least an eighth, by all that is known of it before, raw otherwise. A raw run's data *is* `bytes`: encode the frame before they change.
 * @param options.bytes the content of 1 to 64 whole pages.
 */
export function packRun(options: {
  firstPage: number;
  origin: Origin;
  bytes: Uint8Array;
  compress: boolean;
}): PageRun {
  const { firstPage, origin, bytes } = options;
  const pageCount = bytes.length / PAGE_BYTES;
  assert(
    Number.isInteger(pageCount) && pageCount >= 1 && pageCount <= MAX_RUN_PAGES,
    `${bytes.length} bytes are no run`,
  );
  if (isZero(bytes)) return { firstPage, pageCount, encoding: "zero", origin, data: NOTHING };
  const data = options.compress && mayBecomeLess(bytes) ? compressBlock(bytes) : undefined;
  if (data !== undefined && saves(data, bytes))
    return { firstPage, pageCount, encoding: "lz4", origin, data };
  return { firstPage, pageCount, encoding: "raw", origin, data: bytes };
}

/** Tries two pages of many: where neither becomes less, the whole would cost thirty times as much to no avail. */
function mayBecomeLess(bytes: Uint8Array): boolean {
  const pageCount = bytes.length / PAGE_BYTES;
  if (pageCount <= MOST_UNTRIED_PAGES) return true;
  return [0, pageCount >> 1].some((page) => {
    const one = bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    return saves(compressBlock(one), one);
  });
}

function saves(data: Uint8Array, bytes: Uint8Array): boolean {
  return data.length <= bytes.length - bytes.length / 8;
}

/**
 * The content of a run: for raw pages the run's own data, for LZ4 a new buffer. A zero run has no content to unpack, as
 * its length is bounded by the guest's memory only; installing zeros needs none.
 * @throws WireError `bad-lz4` when compressed data are not what their run says.
 */
export function unpackRun(run: PageRun): Uint8Array {
  assert(run.encoding !== "zero", "zero pages are installed as such, not unpacked");
  return run.encoding === "raw" ? run.data : decompressBlock(run.data, run.pageCount * PAGE_BYTES);
}
