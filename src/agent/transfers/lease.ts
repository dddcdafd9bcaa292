import { messageOf, type Clock, type Log } from "../../base/index.js";

/** A connection on which nothing comes is taken for dead 30 to 40 s after the last byte, because that is looked at every 10 s; the rest is for noticing it and for stopping the child. */
const NOTICE_MS = 50_000;

/** How long after a child's host was last heard of a migrated child that is not complete stands still for certain, as long as its agent lives, in ms. */
export function certainAfterMs(leaseMs: number): number {
  return NOTICE_MS + leaseMs;
}

export interface LeaseOptions {
  leaseMs: number;
  /** Whether the parent's host is there. */
  isLinked(): boolean;
  stop(outOfReachMs: number): Promise<void>;
  resume(): Promise<void>;
  clock: Clock;
  log: Log;
}

/**
 * A migrated child that lacks pages runs only while it hears of its parent's host: when that is out of reach for long, its operator may let the parent run on, and two
 * must not run. It stands still then, and goes on by itself when the host is back.
 */
export class Lease {
  readonly #options: LeaseOptions;
  #heardUs: number;
  #stopped = false;
  #busy: Promise<void> | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#heardUs = options.clock.nowUs();
  }

  /** Looks whether the host is there. To be called about once a second. */
  check(): void {
    const { clock, isLinked, leaseMs, stop, resume } = this.#options;
    const nowUs = clock.nowUs();
    if (isLinked()) this.#heardUs = nowUs;
    const outOfReachMs = (nowUs - this.#heardUs) / 1000;
    if (this.#busy !== undefined) return;
    if (this.#stopped && outOfReachMs === 0) this.#act(resume, false);
    else if (!this.#stopped && outOfReachMs > leaseMs) this.#act(() => stop(outOfReachMs), true);
  }

  /** The child is complete and needs nobody: it goes on, should it stand still. */
  async end(): Promise<void> {
    await this.#busy;
    if (this.#stopped) await this.#options.resume();
    this.#stopped = false;
  }

  #act(act: () => Promise<void>, stopped: boolean): void {
    this.#stopped = stopped;
    this.#busy = act()
      .catch((error: unknown) => {
        // A processor that waits for a page cannot be stopped, but does not run either. What could not be resumed is tried again.
        if (!stopped) this.#stopped = true;
        this.#options.log.warn(
          { problem: messageOf(error), stopped },
          "a child's lease could not be enforced at once",
        );
      })
      .finally(() => (this.#busy = undefined));
  }
}
