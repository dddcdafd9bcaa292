import type { SeededRandom } from "../../../src/base/index.js";

/** How inputs are built up, so that mutations reach what lies behind the parser. */
export type Format = "bytes" | "text" | "json" | "msgpack";

/** One decoder under test. */
export interface Target {
  name: string;
  /** Sources whose coverage is reported: paths relative to the checkout, or directories that end in a slash. */
  covers: readonly string[];
  format: Format;
  maxInputBytes: number;
  /** Valid and nearly valid inputs to start from, besides those kept in the repository. */
  seeds(): Iterable<Uint8Array>;
  /** Most bytes that one input of this length may make the process allocate, garbage included. */
  allocationBytes(inputBytes: number): number;
  /** Puts right what blind mutation never gets right, such as a length. */
  repair?(input: Buffer, random: SeededRandom): Buffer;
  /**
   * Gives the input to the decoder and checks what it made of it. The outcome is one or a few words; a new one is taken for progress.
   * A refusal of the room is an outcome as well: its code. Anything thrown is a finding.
   */
  run(input: Buffer): string | Promise<string>;
  /** Lets go of what it keeps between inputs, where that would keep the process from ending. */
  close?(): Promise<void>;
}

/** A class of coded errors, to be told apart from every other exception. */
type ErrorClass = abstract new (...args: never) => Error & { code: string };

/**
 * The outcome of a decoder that answers with a value or its room's error.
 * @param work decodes, checks the value and returns the outcome.
 * @throws whatever is no error of the room.
 */
export function orRefusal(room: ErrorClass | readonly ErrorClass[], work: () => string): string {
  try {
    return work();
  } catch (error) {
    return refusalOf(room, error);
  }
}

/** The outcome of something thrown. @throws it again when it is no error of the room. */
export function refusalOf(room: ErrorClass | readonly ErrorClass[], error: unknown): string {
  const classes = Array.isArray(room) ? (room as readonly ErrorClass[]) : [room as ErrorClass];
  const found = classes.some((known) => error instanceof known);
  if (!found) throw error;
  return (error as { code: string }).code;
}
