import { messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import type { Settled } from "./peer-child.js";

/** How often a host is asked that left open whether its child runs. */
const ASK_INTERVAL_MS = 2000;

/**
 * Finds out what became of a migration's child that may or may not have been told to run. Its host is asked until it answers: if the child is there, it runs
 * from then on at the latest; if it is gone (a host removes a child by itself that nobody told to run), the parent may run on.
 * @param options.isOver says that nobody wants to know any more; then the answer is `unknown`.
 */
export async function whatBecameOf(options: {
  ask(): Promise<Settled>;
  isOver(): boolean;
  /** How long to wait before the first question. */
  firstAskMs?: number;
  clock: Clock;
  log: Log;
}): Promise<Settled | "unknown"> {
  for (let waitMs = options.firstAskMs ?? ASK_INTERVAL_MS; ; waitMs = ASK_INTERVAL_MS) {
    await sleep(options.clock, waitMs);
    if (options.isOver()) return "unknown";
    try {
      return await options.ask();
    } catch (error) {
      options.log.warn({ problem: messageOf(error) }, "it is still not known whether the child runs");
    }
  }
}
