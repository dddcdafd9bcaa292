import { CodedError } from "../base/index.js";

/** Every way bytes from a peer can break the page protocol. Listed with their meaning in proto/PROTOCOL.md. */
export type WireErrorCode =
  | "short-frame"
  | "unknown-kind"
  | "bad-flags"
  | "wrong-transfer"
  | "bad-sequence"
  | "bad-length"
  | "bad-count"
  | "bad-reserved"
  | "bad-run"
  | "bad-credit"
  | "page-out-of-range"
  | "bad-lz4"
  | "bad-extent"
  | "unknown-disk"
  | "block-out-of-range";

/** What a peer sent is not a frame of this protocol. The connection it came on must be ended. */
export class WireError extends CodedError<WireErrorCode> {}
