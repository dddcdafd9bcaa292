import { assert } from "../base/index.js";
import { checkRange } from "./body.js";

/** A run of pages: the index of the first and how many. Structurally the same as the transfer room's. */
export interface PageRange {
  first: number;
  count: number;
}

/** Bytes of one run in a `received` or `have` frame: u32 first page, u32 count. */
export const RANGE_BYTES = 8;

/** Writes runs one after the other from `offset`. */
export function encodeRanges(ranges: readonly PageRange[], into: Buffer, offset: number): void {
  let at = offset;
  for (const range of ranges) {
    assert(range.count > 0, "a run has at least one page");
    into.writeUInt32BE(range.first, at);
    into.writeUInt32BE(range.count, at + 4);
    at += RANGE_BYTES;
  }
}

/** Reads runs to the end of the body, whose length was checked. @throws WireError `bad-run`, `page-out-of-range`. */
export function decodeRanges(kind: string, body: Buffer, offset: number, pageCount: number): PageRange[] {
  const ranges: PageRange[] = [];
  for (let at = offset; at < body.length; at += RANGE_BYTES) {
    const range = { first: body.readUInt32BE(at), count: body.readUInt32BE(at + 4) };
    checkRange(kind, range, pageCount);
    ranges.push(range);
  }
  return ranges;
}
