/** A timer that has been set. Cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void;
}

/** Time as the rest of the code may see it, so that a simulation can own it. This room is the only one with real timers. */
export interface Clock {
  /** Monotonic time in microseconds from an arbitrary start. */
  nowUs(): number;
  /** Wall time in milliseconds since 1970, for people and for files. */
  wallMs(): number;
  /** Calls `run` once, `delayMs` milliseconds from now. */
  after(delayMs: number, run: () => void): Timer;
  /** Calls `run` once, as soon as work that is already queued (input included) has had its turn. */
  soon(run: () => void): Timer;
}

/** The machine's clock. */
export const realClock: Clock = {
  nowUs: () => Number(process.hrtime.bigint() / 1000n),
  wallMs: () => Date.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
  soon(run) {
    const immediate = setImmediate(run);
    return { cancel: () => clearImmediate(immediate) };
  },
};

/** Resolves `delayMs` milliseconds from now. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => clock.after(delayMs, resolve));
}
