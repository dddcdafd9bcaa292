import { codeOf, messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import type { ChildReport } from "../../control/index.js";

const FIRST_ASK_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

const GONE_CODES = ["no-such-transfer", "has-run"];

export interface InquiryOptions {
  /** Asks the child's host; has a deadline of its own. */
  ask(): Promise<ChildReport>;
  /** Whether anybody need ask: the child's page lanes are away, or it is not known whether it was loaded. */
  isDue(): boolean;
  onReport(report: ChildReport): void;
  /** The host knows of no such child any more, or that it ran and has ended or left. */
  onGone(message: string): void;
  clock: Clock;
  log: Log;
}

/**
 * Asks a child's host about it for as long as that is due, less and less often, for ever: a child that is complete or gone never dials again, and nobody
 * else tells.
 */
export class Inquiry {
  readonly #options: InquiryOptions;
  #pauseMs = FIRST_ASK_MS;
  #timer: Timer | undefined;
  #over = false;

  constructor(options: InquiryOptions) {
    this.#options = options;
  }

  /** @param firstMs when to ask first. */
  start(firstMs = this.#pauseMs): void {
    if (this.#over || this.#timer !== undefined) return;
    this.#timer = this.#options.clock.after(firstMs, () => {
      this.#timer = undefined;
      if (this.#options.isDue()) void this.#ask();
      else {
        this.#pauseMs = FIRST_ASK_MS;
        this.start();
      }
    });
  }

  /** May be called twice. */
  stop(): void {
    this.#over = true;
    this.#timer?.cancel();
  }

  async #ask(): Promise<void> {
    const { ask, isDue, onReport, onGone, log } = this.#options;
    try {
      const report = await ask();
      if (!this.#over && isDue()) onReport(report);
    } catch (error) {
      if (this.#over) return;
      if (GONE_CODES.includes(codeOf(error)) && isDue()) return onGone(messageOf(error));
      log.debug({ problem: messageOf(error) }, "a child's host cannot be asked about it");
    }
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    this.start();
  }
}
