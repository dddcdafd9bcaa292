import { messageOf, type Clock, type Log } from "../../base/index.js";

/** A connection on which nothing comes is taken for dead 30 to 40 s after the last byte, because that is looked at every 10 s; the rest is for noticing it and for stopping the child. */
const NOTICE_MS = 50_000;

/** How long after a child's host was last heard of a migrated child that is not complete stands still for certain, as long as its agent lives, in ms. */
export function certainAfterMs(leaseMs: number): number {
  return NOTICE_MS + leaseMs;
}

/** How often it is noted that the parent's host was heard of. A new agent takes the lease for that much older at most, never for younger. */
const NOTE_INTERVAL_US = 5_000_000;

export interface LeaseOptions {
  leaseMs: number;
  /** When an earlier agent last heard of the parent's host, in µs of the machine's monotonic clock. */
  heardUs?: number;
  /** Notes that for the next agent. */
  note(heardUs: number): void;
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
  #notedUs: number | undefined;
  #stopped = false;
  #busy: Promise<void> | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#heardUs = Math.min(options.clock.nowUs(), options.heardUs ?? Infinity);
  }

  /** Whether it keeps the child from running. */
  get isOver(): boolean {
    return this.#stopped;
  }

  /** Looks whether the host is there. To be called about once a second. */
  check(): void {
    const { clock, isLinked, leaseMs, stop, resume } = this.#options;
    const nowUs = clock.nowUs();
    const linked = isLinked();
    if (linked) this.#hear(nowUs);
    const outOfReachMs = (nowUs - this.#heardUs) / 1000;
    if (this.#busy !== undefined) return;
    if (this.#stopped && linked) this.#act(resume, false);
    else if (!this.#stopped && outOfReachMs > leaseMs) this.#act(() => stop(outOfReachMs), true);
  }

  /** An earlier agent left the child standing still, perhaps because its lease was over: it goes on when the host is there. */
  hold(): void {
    this.#stopped = true;
    this.check();
  }

  /** Who may let the parent run instead says that the child is to run. */
  async goOn(): Promise<void> {
    this.#hear(this.#options.clock.nowUs());
    await this.end();
  }

  /** The child is complete and needs nobody: it goes on, should it stand still. */
  async end(): Promise<void> {
    await this.#busy;
    if (this.#stopped) await this.#options.resume();
    this.#stopped = false;
  }

  #hear(nowUs: number): void {
    this.#heardUs = nowUs;
    if (this.#notedUs !== undefined && nowUs - this.#notedUs < NOTE_INTERVAL_US) return;
    this.#notedUs = nowUs;
    this.#options.note(nowUs);
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
