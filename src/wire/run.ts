import { assert, MAX_RUN_PAGES, PAGE_BYTES } from "../base/index.js";
import { compressBlock, decompressBlock } from "./lz4.js";
import type { Origin } from "./numbers.js";
import type { PageRun } from "./pages.js";

const ZEROS = Buffer.alloc(MAX_RUN_PAGES * PAGE_BYTES);
const NOTHING = new Uint8Array(0);

/** True when all bytes are zero. It ends at the first that is not; 64 KiB of zeros take less than 1 µs. */
export function isZero(bytes: Uint8Array): boolean {
  assert(bytes.length <= ZEROS.length, `${bytes.length} bytes are more than a run holds`);
  return Buffer.compare(bytes, bytes.length === ZEROS.length ? ZEROS : ZEROS.subarray(0, bytes.length)) === 0;
}

/**
 * Makes a run of the content of consecutive pages: a zero run when all of it is zero, LZ4 when asked for and when that
 * saves at least an eighth, raw otherwise. A raw run's data *is* `bytes`: encode the frame before they change.
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
  if (options.compress) {
    const data = compressBlock(bytes);
    if (data.length <= bytes.length - bytes.length / 8)
      return { firstPage, pageCount, encoding: "lz4", origin, data };
  }
  return { firstPage, pageCount, encoding: "raw", origin, data: bytes };
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
