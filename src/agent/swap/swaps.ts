import { AgentError } from "../errors.js";
import type { SwapFile } from "./swap-record.js";

/** The exchanges of roles under way in this agent, which waits for them before it ends: they take a moment. And those whose record could not be removed yet. */
export class Swaps {
  readonly #underWay = new Set<Promise<unknown>>();
  /** Not at their end: to be gone on with before any of their guests has another role. */
  readonly unfinished = new Set<SwapFile>();
  #isOver = false;

  /** @throws AgentError `draining`, and what `work` throws. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isOver) throw new AgentError("draining", "the agent is stopping and exchanges no roles");
    const done = work();
    this.#underWay.add(done);
    try {
      return await done;
    } finally {
      this.#underWay.delete(done);
    }
  }

  /** Resolves when none is under way. Each has deadlines of its own. */
  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.allSettled(this.#underWay);
  }
}
