import { assert, MAX_RECEIVED_RUNS } from "../base/index.js";
import {
  checkBodyLength,
  checkCount,
  checkFixedPart,
  checkFlags,
  checkReserved,
  type BodyCodec,
} from "./body.js";
import { HAVE_LAST_FLAG } from "./numbers.js";
import { decodeRanges, encodeRanges, RANGE_BYTES, type PageRange } from "./ranges.js";

/** Pages the child already has when it dials. First on every bulk lane, child to parent, until one is `last`. */
export interface HaveFrame {
  kind: "have";
  last: boolean;
  runs: PageRange[];
}

const FIXED_BYTES = 8;

/** Flags: bit 0 last. Body: u16 runs, u16 zero, u32 zero; then u32 first, u32 count per run. */
export const haveCodec: BodyCodec<HaveFrame> = {
  flags: (frame) => (frame.last ? HAVE_LAST_FLAG : 0),

  bodyBytes: (frame) => FIXED_BYTES + frame.runs.length * RANGE_BYTES,

  encode(frame, into) {
    assert(frame.runs.length <= MAX_RECEIVED_RUNS, `a have frame cannot hold ${frame.runs.length} runs`);
    into.writeUInt16BE(frame.runs.length, 0);
    into.writeUInt16BE(0, 2);
    into.writeUInt32BE(0, 4);
    encodeRanges(frame.runs, into, FIXED_BYTES);
  },

  decode(body, { flags, pageCount }) {
    checkFlags("have", flags, HAVE_LAST_FLAG);
    checkFixedPart("have", body, FIXED_BYTES);
    const runCount = body.readUInt16BE(0);
    checkCount("have", runCount, { least: 0, most: MAX_RECEIVED_RUNS });
    checkReserved("have", body.readUInt16BE(2));
    checkReserved("have", body.readUInt32BE(4));
    checkBodyLength("have", body, FIXED_BYTES + runCount * RANGE_BYTES);
    const last = (flags & HAVE_LAST_FLAG) !== 0;
    return { kind: "have", last, runs: decodeRanges("have", body, FIXED_BYTES, pageCount) };
  },
};
