import { getPriority } from "node:os";
import { CodedError, codeOf, messageOf, sleep, type Log, type Timer } from "../../base/index.js";
import type { AgentInfo } from "../../control/index.js";
import { calmPriority, raisePriority } from "../priority.js";
import type { TransferBook } from "../transfers/transfer-book.js";
import { reachableOwnAddress } from "./own-address.js";
import { RehearsedTransfer, type OwnAddress, type RehearsalParts, type Scene } from "./rehearsed-transfer.js";
import { Stage } from "./stage.js";

/** Memory of more than 2 GiB, so that what counts its bytes is compiled for numbers that do not fit into 32 bits. Nearly all of it are holes. */
const PAGE_COUNT = 640 * 1024;
/** What has content lies behind that bound. */
const FIRST_PAGE = 560 * 1024;
const CONTENT_PAGES = 4096;

/** After so many there is hardly anything left to compile. */
const MOST_TRANSFERS = 9;

/** Between two transfers, and while there are real ones. */
const REST_MS = 20;
const WAIT_MS = 1000;

/** Played in turns until the processor time is used up. */
const SCENES: readonly Pick<Scene, "kind" | "compress" | "touches">[] = [
  { kind: "migrate", compress: false, touches: 400 },
  { kind: "fork", compress: false, touches: 400 },
  { kind: "migrate", compress: true, touches: 100 },
];

export interface RehearsalOptions extends Omit<RehearsalParts, "log"> {
  /** Processor time of this agent that it may take in all; 0 for none. */
  budgetMs: number;
  /** Where it keeps files while it plays. */
  directory: string;
  /** Where this agent may be reached, best first. */
  addresses: () => readonly OwnAddress[];
  book: TransferBook;
  log: Log;
}

/**
 * Plays transfers from this agent to itself while it has nothing else to do, so that its first real one does not run code that is compiled meanwhile: what serves
 * faults and sends and installs pages is several times slower until it is. It is in nobody's way: it ends at once when a real transfer begins, and goes on when there
 * is none. That it cannot play is no failure of the agent.
 */
export class Rehearsal {
  readonly #options: RehearsalOptions;
  readonly #log: Log;
  #phase: NonNullable<AgentInfo["rehearsal"]>["phase"] = "waiting";
  #problem: string | undefined;
  #played = 0;
  #interrupted = 0;
  #usedMs = 0;
  #timer: Timer | undefined;
  #stage: Stage | undefined;
  #transfer: RehearsedTransfer | undefined;
  #stopped = false;
  #closed = false;
  /** Whether this agent runs ahead of others, and is to again. */
  #isAhead = false;

  constructor(options: RehearsalOptions) {
    this.#options = options;
    this.#log = options.log.child({ rehearsal: true });
    if (options.budgetMs === 0) this.#phase = "off";
  }

  /** What clients are told of it. */
  view(): NonNullable<AgentInfo["rehearsal"]> {
    return {
      phase: this.#phase,
      transfers: this.#played,
      interrupted: this.#interrupted,
      processorMs: Math.round(this.#usedMs),
      ...(this.#problem === undefined ? {} : { problem: this.#problem.slice(0, 512) }),
    };
  }

  /** Begins, once, when the agent is ready. Returns at once. */
  start(): void {
    if (this.#phase === "off" || this.#closed) return;
    this.#isAhead = getPriority() < 0;
    this.#options.book.onAdd(() => this.#interrupt());
    this.#later(0);
  }

  /** Ends it at once. May be called twice. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#abandon("the agent is stopping");
  }

  #later(delayMs: number): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.after(delayMs, () => void this.#go());
  }

  /** Never rejects. */
  async #go(): Promise<void> {
    const { book, budgetMs, clock } = this.#options;
    if (book.active.length > 0) return this.#later(WAIT_MS);
    this.#phase = "playing";
    this.#stopped = false;
    const beganUs = clock.nowUs();
    try {
      const at = await reachableOwnAddress(this.#options, this.#options.addresses());
      this.#requireGoing();
      const began = process.cpuUsage();
      const usedBeforeMs = this.#usedMs;
      if (this.#isAhead) calmPriority();
      await this.#playAll(at, () => {
        const { user, system } = process.cpuUsage(began);
        this.#usedMs = usedBeforeMs + (user + system) / 1000;
        return this.#usedMs < budgetMs;
      });
      this.#phase = "done";
    } catch (error) {
      // One that was interrupted fails in whatever way it comes to notice; and nothing that fails here is to be the end of an agent that has guests.
      this.#phase = this.#stopped ? "waiting" : "failed";
      if (!this.#stopped) this.#problem = messageOf(error);
      if (!this.#stopped && !(error instanceof CodedError))
        this.#log.error({ err: error }, "a rehearsal failed");
    } finally {
      this.#abandon("the rehearsal is over");
    }
    const tookMs = Math.round((clock.nowUs() - beganUs) / 1000);
    this.#log.info({ ...this.view(), tookMs }, "rehearsed transfers");
    if (this.#phase === "waiting") this.#later(WAIT_MS);
  }

  async #playAll(at: OwnAddress, mayGoOn: () => boolean): Promise<void> {
    const { clock } = this.#options;
    const stage = await Stage.open({ ...this.#options, pageCount: PAGE_COUNT, log: this.#log });
    this.#stage = stage;
    this.#requireGoing();
    const range = { first: FIRST_PAGE, count: CONTENT_PAGES };
    await stage.parent.fill(range);
    for (let turn = 0; turn < MOST_TRANSFERS && mayGoOn(); turn += 1) {
      this.#requireGoing();
      const scene = { ...(SCENES[turn % SCENES.length] as (typeof SCENES)[number]), ...range };
      const transfer = new RehearsedTransfer({ ...this.#options, log: this.#log }, stage, { at, scene });
      this.#transfer = transfer;
      await transfer.play();
      this.#transfer = undefined;
      this.#played += 1;
      await sleep(clock, REST_MS);
    }
  }

  #requireGoing(): void {
    if (!this.#stopped) return;
    this.#stage?.close();
    throw new Error("the rehearsal was interrupted");
  }

  #interrupt(): void {
    if (this.#phase !== "playing" || this.#stopped) return;
    this.#interrupted += 1;
    this.#abandon("a transfer begins");
  }

  #abandon(why: string): void {
    if (this.#isAhead) raisePriority(this.#log);
    this.#stopped = true;
    try {
      this.#transfer?.abandon(why);
      this.#stage?.close();
    } catch (error) {
      this.#log.warn({ code: codeOf(error), problem: messageOf(error) }, "a rehearsal did not end in order");
    }
    this.#transfer = undefined;
    this.#stage = undefined;
  }
}
