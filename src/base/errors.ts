/**
 * What a user, a peer or the machine got wrong. Each room has one subclass with its own union of codes; the
 * codes are stable, listed in docs/errors.md, and travel over the control API. The message is one sentence that names
 * the input and the rule, and says what to do next where something can be done.
 */
export class CodedError<Code extends string = string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The message of anything thrown, without a stack trace. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The stable code of anything thrown: its own when it is coded (also Node's system errors), `internal` otherwise. */
export function codeOf(thrown: unknown): string {
  if (thrown instanceof Error && "code" in thrown && typeof thrown.code === "string") return thrown.code;
  return "internal";
}
