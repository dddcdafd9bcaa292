import { codeOf, type Log } from "../../base/index.js";

/** One try at a fork. */
export interface ForkAttempt<T> {
  run(): Promise<T>;
  /** It has failed, and is not to be listed. */
  forget(): void;
}

/**
 * Forks, and does so once more when the guest ran on before its instant. That is found out afterwards, from what its emulator has saved; the next try is
 * made in steps and does not depend on the size of that.
 * @throws what the last try throws.
 */
export async function forkInTwoAttempts<T>(attempt: () => ForkAttempt<T>, log: Log): Promise<T> {
  const first = attempt();
  try {
    return await first.run();
  } catch (error) {
    if (codeOf(error) !== "ran-on") throw error;
    log.warn({}, "the guest ran on before the instant of its fork; it is forked anew");
    first.forget();
  }
  return attempt().run();
}
