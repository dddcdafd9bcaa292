import { codeOf, messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import type { ChildReport } from "../../control/index.js";
import { TransferError } from "../../transfer/index.js";

/** How often the child's host is asked. It takes that for the word that this host is there. */
const ASK_INTERVAL_MS = 1000;

const GONE_CODES = ["no-such-transfer", "has-run"];

export interface DiskWatchOptions {
  /** Asks the child's host; has a deadline of its own. */
  ask(): Promise<ChildReport>;
  onReport(report: ChildReport): void;
  /** How long the host may be out of reach before the child is given up; without it for ever. */
  linkDeadlineMs: number | undefined;
  clock: Clock;
  log: Log;
}

/** The parent's side of a migrated child that has all its memory, and not all its disks: its host is asked until it has them, and meanwhile the parent is kept. */
export class DiskWatch {
  readonly #options: DiskWatchOptions;
  #over = false;
  #failure: TransferError | undefined;
  #heardUs: number;
  #lost: { sinceUs: number; why: string } | undefined;

  constructor(options: DiskWatchOptions) {
    this.#options = options;
    this.#heardUs = options.clock.nowUs();
  }

  /** Since when the child's host cannot be asked; undefined when it can. */
  get lost(): { sinceUs: number; why: string } | undefined {
    return this.#lost;
  }

  /** Nobody waits for the child's disks any more. */
  fail(error: TransferError): void {
    this.#failure ??= error;
  }

  /** Leaves it to the next agent: `wait` never resolves. */
  detach(): void {
    this.#over = true;
  }

  /** Resolves when the child is complete, or with the reason why it never will be, as far as this host is concerned. */
  async wait(): Promise<TransferError | undefined> {
    for (;;) {
      if (this.#over) return new Promise(() => {});
      if (this.#failure !== undefined) return this.#failure;
      if (await this.#isComplete()) return this.#failure;
      if (this.#failure === undefined) await sleep(this.#options.clock, ASK_INTERVAL_MS);
    }
  }

  async #isComplete(): Promise<boolean> {
    const { ask, onReport, clock, log, linkDeadlineMs = Infinity } = this.#options;
    try {
      const report = await ask();
      if (this.#over) return false;
      this.#heardUs = clock.nowUs();
      this.#lost = undefined;
      onReport(report);
      const { phase, message = `its host says that the child is ${phase}` } = report;
      if (phase === "failed" || phase === "cancelled") this.fail(new TransferError("child-failed", message));
      return phase === "complete";
    } catch (error) {
      if (GONE_CODES.includes(codeOf(error))) this.fail(new TransferError("child-failed", messageOf(error)));
      else log.debug({ problem: messageOf(error) }, "a child's host cannot be asked for its disks");
      this.#lost = { sinceUs: this.#heardUs, why: messageOf(error) };
      const awayMs = (clock.nowUs() - this.#heardUs) / 1000;
      if (awayMs > linkDeadlineMs)
        this.fail(
          new TransferError("link-lost", `the child's host was out of reach for ${linkDeadlineMs} ms`),
        );
      return false;
    }
  }
}
