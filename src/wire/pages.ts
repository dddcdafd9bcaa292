import { assert, MAX_FRAME_RUNS, MAX_RUN_PAGES, PAGE_BYTES } from "../base/index.js";
import {
  checkBodyLength,
  checkCount,
  checkFixedPart,
  checkFlags,
  checkRange,
  checkReserved,
  type BodyCodec,
} from "./body.js";
import { WireError } from "./errors.js";
import { LZ4_PREFIX_BYTES } from "./lz4.js";
import { ENCODING, encodingOf, ORIGIN, originOf, type Encoding, type Origin } from "./numbers.js";

/** Consecutive pages with their content as it stands on the wire (`packRun` makes it, `unpackRun` reads it). */
export interface PageRun {
  firstPage: number;
  pageCount: number;
  encoding: Encoding;
  origin: Origin;
  /** Empty for zero pages. In a decoded frame it is a view of the frame's bytes. */
  data: Uint8Array;
}

/** Pages on their way from parent to child, on the urgent or the bulk lane. */
export interface PagesFrame {
  kind: "pages";
  runs: PageRun[];
}

const FIXED_BYTES = 4;
const DESCRIPTOR_BYTES = 16;

/** Bytes a run adds to a `pages` frame. */
export function runBytes(run: PageRun): number {
  return DESCRIPTOR_BYTES + run.data.length;
}

/** Body: u16 runs, u16 zero; per run 16 bytes of descriptor; then the data of all runs, in the same order. */
export const pagesCodec: BodyCodec<PagesFrame> = {
  flags: () => 0,

  bodyBytes(frame) {
    let sizeBytes = FIXED_BYTES;
    for (const run of frame.runs) sizeBytes += runBytes(run);
    return sizeBytes;
  },

  encode(frame, into) {
    const { runs } = frame;
    assert(runs.length >= 1 && runs.length <= MAX_FRAME_RUNS, `a frame cannot hold ${runs.length} runs`);
    into.writeUInt16BE(runs.length, 0);
    into.writeUInt16BE(0, 2);
    let at = FIXED_BYTES;
    let dataAt = FIXED_BYTES + runs.length * DESCRIPTOR_BYTES;
    for (const run of runs) {
      const wrong = wrongRun(run, run.data.length);
      assert(wrong === undefined, `a run to be sent is wrong: ${wrong}`);
      into.writeUInt32BE(run.firstPage, at);
      into.writeUInt32BE(run.pageCount, at + 4);
      into[at + 8] = ENCODING[run.encoding];
      into[at + 9] = ORIGIN[run.origin];
      into.writeUInt16BE(0, at + 10);
      into.writeUInt32BE(run.data.length, at + 12);
      into.set(run.data, dataAt);
      at += DESCRIPTOR_BYTES;
      dataAt += run.data.length;
    }
  },

  decode(body, { flags, pageCount }) {
    checkFlags("pages", flags, 0);
    checkFixedPart("pages", body, FIXED_BYTES);
    const runCount = body.readUInt16BE(0);
    checkCount("pages", runCount, { least: 1, most: MAX_FRAME_RUNS });
    checkReserved("pages", body.readUInt16BE(2));
    const firstDataAt = FIXED_BYTES + runCount * DESCRIPTOR_BYTES;
    checkFixedPart("pages", body, firstDataAt);
    const runs: PageRun[] = [];
    let dataAt = firstDataAt;
    for (let at = FIXED_BYTES; at < firstDataAt; at += DESCRIPTOR_BYTES) {
      const run = decodeRun(body, { at, dataAt, pageCount });
      dataAt += run.data.length;
      runs.push(run);
    }
    checkBodyLength("pages", body, dataAt);
    return { kind: "pages", runs };
  },
};

function decodeRun(body: Buffer, where: { at: number; dataAt: number; pageCount: number }): PageRun {
  const { at, dataAt } = where;
  const firstPage = body.readUInt32BE(at);
  const pageCount = body.readUInt32BE(at + 4);
  checkRange("pages", { first: firstPage, count: pageCount }, where.pageCount);
  const encoding = encodingOf(body.readUInt8(at + 8));
  if (encoding === undefined)
    throw new WireError("bad-run", `page encoding ${body.readUInt8(at + 8)} is not known`);
  const origin = originOf(body.readUInt8(at + 9));
  if (origin === undefined)
    throw new WireError("bad-run", `page origin ${body.readUInt8(at + 9)} is not known`);
  checkReserved("pages", body.readUInt16BE(at + 10));
  const dataBytes = body.readUInt32BE(at + 12);
  const wrong = wrongRun({ encoding, pageCount }, dataBytes);
  if (wrong !== undefined) throw new WireError("bad-run", wrong);
  if (dataAt + dataBytes > body.length) {
    throw new WireError("bad-length", `the data of page ${firstPage} ends outside its frame`);
  }
  return { firstPage, pageCount, encoding, origin, data: body.subarray(dataAt, dataAt + dataBytes) };
}

/** The rule a run's length breaks; undefined when it breaks none. Both sides hold to the same rules. */
function wrongRun(run: { encoding: Encoding; pageCount: number }, dataBytes: number): string | undefined {
  if (run.encoding === "zero") {
    return dataBytes === 0 ? undefined : `a run of zero pages carries ${dataBytes} bytes of data`;
  }
  if (run.pageCount > MAX_RUN_PAGES)
    return `a run carries the data of ${run.pageCount} pages, ${MAX_RUN_PAGES} are allowed`;
  const rawBytes = run.pageCount * PAGE_BYTES;
  if (run.encoding === "raw") {
    return dataBytes === rawBytes
      ? undefined
      : `${run.pageCount} raw pages take ${rawBytes} bytes, not ${dataBytes}`;
  }
  if (dataBytes > LZ4_PREFIX_BYTES && dataBytes < rawBytes) return undefined;
  return `${run.pageCount} pages compressed take more than ${LZ4_PREFIX_BYTES} and less than ${rawBytes} bytes, not ${dataBytes}`;
}
