import { assert, BULK_WINDOW_BYTES, MAX_RECEIVED_RUNS } from "../base/index.js";
import {
  checkBodyLength,
  checkCount,
  checkFixedPart,
  checkFlags,
  checkReserved,
  type BodyCodec,
} from "./body.js";
import { WireError } from "./errors.js";
import { decodeRanges, encodeRanges, RANGE_BYTES, type PageRange } from "./ranges.js";

/** The child's report: bytes of bulk frames it has consumed, and pages it now has. Bulk lane, child to parent. */
export interface ReceivedFrame {
  kind: "received";
  creditBytes: number;
  runs: PageRange[];
}

const FIXED_BYTES = 8;

/** Body: u32 credit in bytes, u16 runs, u16 zero; then u32 first, u32 count per run. */
export const receivedCodec: BodyCodec<ReceivedFrame> = {
  flags: () => 0,

  bodyBytes: (frame) => FIXED_BYTES + frame.runs.length * RANGE_BYTES,

  encode(frame, into) {
    assert(
      frame.creditBytes <= BULK_WINDOW_BYTES,
      `${frame.creditBytes} bytes of credit are more than the window`,
    );
    assert(frame.runs.length <= MAX_RECEIVED_RUNS, `a report cannot hold ${frame.runs.length} runs`);
    into.writeUInt32BE(frame.creditBytes, 0);
    into.writeUInt16BE(frame.runs.length, 4);
    into.writeUInt16BE(0, 6);
    encodeRanges(frame.runs, into, FIXED_BYTES);
  },

  decode(body, { flags, pageCount }) {
    checkFlags("received", flags, 0);
    checkFixedPart("received", body, FIXED_BYTES);
    const creditBytes = body.readUInt32BE(0);
    if (creditBytes > BULK_WINDOW_BYTES) {
      throw new WireError(
        "bad-credit",
        `${creditBytes} bytes of credit are more than the window of ${BULK_WINDOW_BYTES}`,
      );
    }
    const runCount = body.readUInt16BE(4);
    checkCount("received", runCount, { least: 0, most: MAX_RECEIVED_RUNS });
    checkReserved("received", body.readUInt16BE(6));
    checkBodyLength("received", body, FIXED_BYTES + runCount * RANGE_BYTES);
    return { kind: "received", creditBytes, runs: decodeRanges("received", body, FIXED_BYTES, pageCount) };
  },
};
