import type { Clock } from "./clock.js";
import { CodedError } from "./errors.js";

/** Something that was waited for did not happen in time. */
export class DeadlineError extends CodedError<"deadline"> {
  constructor(what: string, deadlineMs: number) {
    super("deadline", `${what} did not happen within ${deadlineMs} ms`);
  }
}

/**
 * Waits for `promise`, at most `deadlineMs` milliseconds. The work behind the promise is not stopped: the caller, who
 * started it, ends it.
 * @param what names the thing waited for, as the subject of a sentence ("the emulator's answer to stop").
 * @throws DeadlineError when the time is over, or whatever the promise rejects with.
 */
export async function withDeadline<T>(
  clock: Clock,
  deadlineMs: number,
  what: string,
  promise: Promise<T>,
): Promise<T> {
  let expire: (error: Error) => void = () => {};
  const expired = new Promise<never>((_, reject) => {
    expire = reject;
  });
  const timer = clock.after(deadlineMs, () => expire(new DeadlineError(what, deadlineMs)));
  try {
    return await Promise.race([promise, expired]);
  } finally {
    timer.cancel();
  }
}
