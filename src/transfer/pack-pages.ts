import { PAGE_BYTES } from "../base/index.js";
import { packRun, type Origin, type PageRun } from "../wire/index.js";
import { splitZeroPages } from "./zero-pages.js";

/** The runs that carry consecutive whole pages: zero pages as such, the others raw, or as lz4 with `compress` where that saves something. */
export function packPages(pages: {
  firstPage: number;
  bytes: Uint8Array;
  origin: Origin;
  compress: boolean;
}): PageRun[] {
  const { bytes, origin, compress } = pages;
  return splitZeroPages(bytes).map(({ first, count }) => {
    const content = bytes.subarray(first * PAGE_BYTES, (first + count) * PAGE_BYTES);
    return packRun({ firstPage: pages.firstPage + first, origin, bytes: content, compress });
  });
}
