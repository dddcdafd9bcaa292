import { messageOf, realClock, sleep } from "../../src/base/index.js";
import { eventually } from "../../test/support/hosts.js";
import type { Bucket } from "./statistics.js";

const SHORT_DEADLINE_MS = 10_000;
const ATTEMPTS = 3;
const RETRY_MS = 100;
const ANSWER_DEADLINE_MS = 120_000;
const WRITTEN_DEADLINE_MS = 120_000;
/** A question that gets no answer this soon is asked again, while a guest boots. */
const READY_DEADLINE_MS = 1000;
const BOOT_DEADLINE_MS = 120_000;

/** Durations as the sample guest counts them: `[longest, how many]`, in µs. */
export interface Durations {
  count: number;
  mean_ns: number;
  max_us: number;
  buckets: Bucket[];
}

/** What the guest's toucher has felt since it was started or reset. */
export interface Touches extends Durations {
  stalls: number;
  /** Sum of the stalls. */
  stall_us: number;
}

/** The sample guest's program over HTTP, whoever runs the guest. A connection of its own for each question. */
export class SampleGuest {
  readonly #base: string;

  /** @param base such as `http://127.0.0.11:8480`. */
  constructor(base: string) {
    this.#base = base;
  }

  async ask<T>(path: string, deadlineMs = ANSWER_DEADLINE_MS): Promise<T> {
    const answer = await this.#fetch(path, deadlineMs);
    const body = (await answer.json()) as T & { error?: string };
    if (!answer.ok) throw new Error(`the guest answers ${path} with: ${body.error}`);
    return body;
  }

  /** As `ask`, for what is answered at once. The emulator's user-mode network loses some connections just after a guest was moved. */
  async #askAgain<T>(path: string): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.ask<T>(path, SHORT_DEADLINE_MS);
      } catch (error) {
        if (attempt === ATTEMPTS) throw error;
        process.stderr.write(`${path} is asked again: ${messageOf(error)}\n`);
        await sleep(realClock, RETRY_MS);
      }
    }
  }

  async #fetch(path: string, deadlineMs: number): Promise<Response> {
    try {
      return await fetch(`${this.#base}${path}`, {
        headers: { connection: "close" },
        signal: AbortSignal.timeout(deadlineMs),
      });
    } catch (error) {
      throw new Error(`${this.#base}${path} gave no answer`, { cause: error });
    }
  }

  /** Waits until it answers. */
  async whenReady(): Promise<void> {
    const answers = (): Promise<boolean> =>
      this.ask("/counter", READY_DEADLINE_MS).then(
        () => true,
        () => false,
      );
    await eventually("the guest answers", answers, BOOT_DEADLINE_MS);
  }

  /** Stamps `mib` MiB of its memory again and again as fast as it can; resolves when all of it was written once. */
  async write(mib: number): Promise<void> {
    await this.ask(`/stamp/start?mib=${mib}`);
    const isWritten = async (): Promise<boolean> =>
      (await this.#askAgain<{ generation: number }>("/stamp/status")).generation > 0;
    await eventually(`the guest has written ${mib} MiB`, isWritten, WRITTEN_DEADLINE_MS);
  }

  /** From now on writes so many MiB/s; with 0 as fast as it can. */
  async pace(mibPerSecond: number): Promise<void> {
    await this.#askAgain(`/stamp/pace?rate=${mibPerSecond}`);
  }

  /** Ends the writing; what was written stays. */
  async rest(): Promise<void> {
    await this.#askAgain("/stamp/stop");
  }

  /** Reads all its stamped pages in random order. Throws when one is not what was written. */
  async readAll(): Promise<void> {
    const { bad } = await this.ask<{ bad: number }>("/stamp/verify?order=random");
    if (bad !== 0) throw new Error(`${bad} pages of the guest are not what was written to them`);
  }

  /** From now on touches random pages of what was stamped and measures each touch. */
  async startTouching(how: { mode: "read" | "write"; rate: number; thresholdUs: number }): Promise<void> {
    await this.#askAgain(`/touch/start?mode=${how.mode}&rate=${how.rate}&threshold_us=${how.thresholdUs}`);
  }

  /** Forgets what the toucher has felt so far. */
  async resetTouches(): Promise<void> {
    await this.#askAgain("/touch/reset");
  }

  async stopTouching(): Promise<Touches> {
    return this.#askAgain<Touches>("/touch/stop");
  }

  /** How long batches of 16 pages took the writer since the last question of this kind. */
  async writerLatency(): Promise<Durations> {
    return (await this.#askAgain<{ writer: Durations }>("/latency/reset")).writer;
  }
}
