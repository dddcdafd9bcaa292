import { assert, MAX_REQUEST_PAGES } from "../base/index.js";
import {
  checkBodyLength,
  checkCount,
  checkFixedPart,
  checkFlags,
  checkRange,
  checkReserved,
  type BodyCodec,
} from "./body.js";

/** Pages the child waits for, most urgent first. Urgent lane, child to parent. */
export interface RequestFrame {
  kind: "request";
  pages: number[];
}

const FIXED_BYTES = 4;
const PAGE_NUMBER_BYTES = 4;

/** Body: u16 count, u16 zero; then u32 page per page. */
export const requestCodec: BodyCodec<RequestFrame> = {
  flags: () => 0,

  bodyBytes: (frame) => FIXED_BYTES + frame.pages.length * PAGE_NUMBER_BYTES,

  encode(frame, into) {
    const { pages } = frame;
    assert(
      pages.length >= 1 && pages.length <= MAX_REQUEST_PAGES,
      `a request cannot name ${pages.length} pages`,
    );
    into.writeUInt16BE(pages.length, 0);
    into.writeUInt16BE(0, 2);
    let at = FIXED_BYTES;
    for (const page of pages) at = into.writeUInt32BE(page, at);
  },

  decode(body, { flags, pageCount }) {
    checkFlags("request", flags, 0);
    checkFixedPart("request", body, FIXED_BYTES);
    const count = body.readUInt16BE(0);
    checkCount("request", count, { least: 1, most: MAX_REQUEST_PAGES });
    checkReserved("request", body.readUInt16BE(2));
    checkBodyLength("request", body, FIXED_BYTES + count * PAGE_NUMBER_BYTES);
    const pages: number[] = [];
    for (let at = FIXED_BYTES; at < body.length; at += PAGE_NUMBER_BYTES) {
      const page = body.readUInt32BE(at);
      checkRange("request", { first: page, count: 1 }, pageCount);
      pages.push(page);
    }
    return { kind: "request", pages };
  },
};
