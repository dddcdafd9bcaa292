import { CodedError } from "../base/index.js";

/**
 * - `usage`: the command line itself is wrong.
 * - `unreachable`: no connection to the agent, or not allowed in.
 * - `failed`: the command was carried out and did not succeed (a child that failed, pages that differ).
 * - `interrupted`: the user pressed Ctrl-C, or the process was told to end.
 */
export type CliErrorCode = "usage" | "unreachable" | "failed" | "interrupted";

/** What the command line found wrong before, or after, asking the agent. */
export class CliError extends CodedError<CliErrorCode> {
  /** What the user can do next, as one sentence. */
  readonly hint: string | undefined;

  constructor(code: CliErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(code, message, options.cause === undefined ? {} : { cause: options.cause });
    this.hint = options.hint;
  }
}
