import { CodedError } from "../base/index.js";

/**
 * Why a connection could not be made or has ended. `refused` and `unknown-transfer` are the other side's decisions;
 * `bad-address` and `bad-credentials` are what a user gave; `bad-message` is a breach of the protocol below frames. What is wrong with a certificate
 * can be mended while both sides run, hence dialling again may help.
 */
export type LaneErrorCode =
  | "bad-address"
  | "unreachable"
  | "timeout"
  | "refused"
  | "unauthenticated"
  | "bad-credentials"
  | "certificate-missing"
  | "certificate-untrusted"
  | "certificate-expired"
  | "certificate-revoked"
  | "certificate-name"
  | "certificate-role"
  | "tls-failed"
  | "unsupported-version"
  | "unknown-transfer"
  | "bad-message"
  | "too-large"
  | "dead"
  | "closed";

const CODES: { [Code in LaneErrorCode]: { fatal: boolean } } = {
  "bad-address": { fatal: true },
  unreachable: { fatal: false },
  timeout: { fatal: false },
  refused: { fatal: true },
  unauthenticated: { fatal: true },
  "bad-credentials": { fatal: true },
  "certificate-missing": { fatal: false },
  "certificate-untrusted": { fatal: false },
  "certificate-expired": { fatal: false },
  "certificate-revoked": { fatal: false },
  "certificate-name": { fatal: false },
  "certificate-role": { fatal: false },
  "tls-failed": { fatal: false },
  "unsupported-version": { fatal: true },
  "unknown-transfer": { fatal: true },
  "bad-message": { fatal: true },
  "too-large": { fatal: true },
  dead: { fatal: false },
  closed: { fatal: false },
};

/** The lane room's one error. `fatal` means that dialling again cannot help. */
export class LaneError extends CodedError<LaneErrorCode> {
  readonly fatal: boolean;

  /** @param options.fatal when it differs from what the code usually means. */
  constructor(code: LaneErrorCode, message: string, options: { fatal?: boolean } = {}) {
    super(code, message);
    this.fatal = options.fatal ?? CODES[code].fatal;
  }
}

/** A code that came from the other side; `fallback` when this version does not know it. */
export function laneErrorCode(code: string, fallback: LaneErrorCode): LaneErrorCode {
  return Object.hasOwn(CODES, code) ? (code as LaneErrorCode) : fallback;
}
