import { TransferError } from "./errors.js";
import type { ChildSession } from "./fork.js";
import type { SessionPhase } from "./session-options.js";
import type { Sharing } from "./shared-memory.js";

/**
 * The parent's side of a child that maps its memory privately: at the instant the child comes to share that, and with it has everything. What follows is between
 * the memory and the child, for as long as both live.
 */
export class SharingSession implements ChildSession {
  readonly linked = Promise.resolve();
  readonly #join: () => Sharing;
  #phase: SessionPhase = { phase: "waiting-for-child" };
  #sharing: Sharing | undefined;
  #ended = false;

  /** @param join has the child share the memory from now on. */
  constructor(join: () => Sharing) {
    this.#join = join;
  }

  get phase(): SessionPhase {
    return this.#phase;
  }

  /** The guest is stopped and all of its memory protected. */
  atInstant(): void {
    if (this.#phase.phase !== "waiting-for-child") return;
    this.#sharing = this.#join();
    this.#phase = { phase: "complete" };
  }

  begin(): void {}

  /** The child is not to be; it shares until its emulator has ended. */
  fail(error: TransferError): void {
    if (this.#phase.phase !== "failed") this.#phase = { phase: "failed", error };
  }

  /** The child's emulator has ended. May be called twice. */
  leave(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.fail(new TransferError("child-failed", why));
    this.#sharing?.leave();
  }
}
