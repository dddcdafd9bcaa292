import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { Receiving } from "../transfers/child-move.js";
import type { ExchangeRun } from "./exchange-run.js";

/** The exchanges under way in this agent, which waits for them before it ends: they take a moment, and a guest stands still in them. */
export class Exchanges {
  /** The latest exchange of every guest of the host, also when it is over. */
  latest: ExchangeRun | undefined;
  /** Children that this agent receives, and how that goes on in another emulator. */
  readonly receiving = new WeakMap<Guest, Receiving>();
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #abort = new AbortController();

  /** Does an exchange. What has not come to its pause when the agent ends is given up: `signal` says so. @throws AgentError `draining`, and what `work` throws. */
  async during<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#abort.signal.aborted)
      throw new AgentError(
        "draining",
        "the agent is stopping: no guest is brought out of its emulator or into one",
      );
    const done = work(this.#abort.signal);
    this.#underWay.add(done);
    try {
      return await done;
    } finally {
      this.#underWay.delete(done);
    }
  }

  /** Gives up those that can be, and resolves when none is under way. Each has deadlines of its own. */
  async end(): Promise<void> {
    this.#abort.abort();
    await Promise.allSettled(this.#underWay);
  }
}
