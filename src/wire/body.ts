import { WireError } from "./errors.js";

/** How one kind of frame is written and read. There is one file per kind, each exporting one of these. */
export interface BodyCodec<Frame> {
  /** Bytes the body of this frame takes. */
  bodyBytes(frame: Frame): number;
  /** The header's flags for this frame. */
  flags(frame: Frame): number;
  /** Writes the body; `into` has exactly `bodyBytes(frame)` bytes, of unknown content. */
  encode(frame: Frame, into: Buffer): void;
  /** Reads and checks a body of any length. Allocates nothing before the length it needs was found to be there. */
  decode(body: Buffer, context: DecodeContext): Frame;
}

/** What a body's decoder may know besides the body. */
export interface DecodeContext {
  flags: number;
  /** Pages of the guest's memory; every page number must lie below. */
  pageCount: number;
}

/** @throws WireError `bad-flags` when a bit is set that this kind does not define. */
export function checkFlags(kind: string, flags: number, known: number): void {
  if ((flags & ~known) !== 0) {
    throw new WireError("bad-flags", `flags 0x${flags.toString(16)} of a ${kind} frame are not known`);
  }
}

/** @throws WireError `bad-length` when the body is shorter than its fixed part. */
export function checkFixedPart(kind: string, body: Buffer, fixedBytes: number): void {
  if (body.length < fixedBytes) {
    throw new WireError(
      "bad-length",
      `the body of a ${kind} frame has ${body.length} of at least ${fixedBytes} bytes`,
    );
  }
}

/** @throws WireError `bad-length` when the body's length is not what its counts ask for. */
export function checkBodyLength(kind: string, body: Buffer, neededBytes: number): void {
  if (body.length !== neededBytes) {
    throw new WireError(
      "bad-length",
      `the body of a ${kind} frame has ${body.length} bytes where its counts need ${neededBytes}`,
    );
  }
}

/** @throws WireError `bad-count` when a count is outside its limits. */
export function checkCount(kind: string, count: number, limits: { least: number; most: number }): void {
  if (count < limits.least || count > limits.most) {
    throw new WireError(
      "bad-count",
      `a ${kind} frame holds ${limits.least} to ${limits.most} items, not ${count}`,
    );
  }
}

/** @throws WireError `bad-reserved` when bytes that must be zero are not. */
export function checkReserved(kind: string, value: number): void {
  if (value !== 0) throw new WireError("bad-reserved", `reserved bytes of a ${kind} frame are not zero`);
}

/** @throws WireError `bad-run` when a run is empty, `page-out-of-range` when it leaves the guest's memory. */
export function checkRange(kind: string, range: { first: number; count: number }, pageCount: number): void {
  if (range.count === 0) throw new WireError("bad-run", `a ${kind} frame holds a run of no pages`);
  if (range.first + range.count > pageCount) {
    const last = range.first + range.count - 1;
    throw new WireError(
      "page-out-of-range",
      `a ${kind} frame names page ${last} of a memory of ${pageCount} pages`,
    );
  }
}
