export { WireError, type WireErrorCode } from "./errors.js";
export { decodeFrame, encodeFrame, frameBytes, type Frame } from "./frame.js";
export { MAX_SEQUENCE, type FramePosition } from "./header.js";
export { ENCODING, FRAME_KIND, HAVE_LAST_FLAG, ORIGIN, PROTOCOL_VERSION } from "./numbers.js";
export type { Encoding, FrameKind, Origin } from "./numbers.js";
export { runBytes, type PageRun } from "./pages.js";
export type { PageRange } from "./ranges.js";
export { isZero, packRun, unpackRun } from "./run.js";
