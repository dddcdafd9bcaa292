import { realClock, type Clock, type Timer } from "../../src/base/index.js";

/** A clock whose timers fire only when the test says so; `soon` and the sockets stay real. */
export class ManualClock implements Clock {
  #nowUs = 1_000_000;
  readonly #timers = new Set<{ atUs: number; run: () => void }>();

  /** Timers that are set and have not fired: none may be left when everything is closed. */
  get pending(): number {
    return this.#timers.size;
  }

  nowUs(): number {
    return this.#nowUs;
  }

  wallMs(): number {
    return this.#nowUs / 1000;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer = { atUs: this.#nowUs + delayMs * 1000, run };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  soon(run: () => void): Timer {
    return realClock.soon(run);
  }

  /** Lets time pass, firing in order what falls due. */
  advance(byMs: number): void {
    const untilUs = this.#nowUs + byMs * 1000;
    for (;;) {
      const due = [...this.#timers].filter(({ atUs }) => atUs <= untilUs).sort((a, b) => a.atUs - b.atUs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowUs = due.atUs;
      due.run();
    }
    this.#nowUs = untilUs;
  }
}
