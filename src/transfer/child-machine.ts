import {
  assert,
  codeOf,
  deferred,
  MAX_REQUEST_PAGES,
  messageOf,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import { WireError, type Frame } from "../wire/index.js";
import { ChildPages } from "./child-pages.js";
import { ChildRelay } from "./child-relay.js";
import { ChildReports } from "./child-reports.js";
import { TransferError } from "./errors.js";
import { Link, RESTARTS, type LanePair } from "./lane-pair.js";
import type {
  ChildNotes,
  DialLane,
  FaultThread,
  FillableMemory,
  LaneEnd,
  PageLane,
  TakenPages,
} from "./ports.js";
import type { TransferProgress, VerifyResult } from "./progress.js";
import { runsOf } from "./fault-server.js";

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5000;
/** How long a complete child waits for the parent's answer to `done` before it dials once more. */
const DONE_DEADLINE_MS = 5000;
/** A complete child needs nothing more; it stops telling its parent after so many attempts. */
const MAX_DONE_ATTEMPTS = 5;

/** Where a child stands. It owns all its memory from `complete` on, whether or not the parent has heard of it. */
export type ChildPhase =
  | { phase: "dialling" }
  | { phase: "paging" }
  | { phase: "complete" }
  | { phase: "failed"; error: TransferError };

export interface ChildMachineOptions {
  transfer: number;
  memory: FillableMemory;
  dial: DialLane;
  clock: Clock;
  log: Log;
  /** Compare the digest of each page given with the parent's. */
  verify: boolean;
  /** What the next agent needs besides the memory itself. */
  notes: ChildNotes;
  /** Goes on with the child of an agent that has ended. All its epochs were at most `epoch`. */
  recovered?: { epoch: number };
  /** Waits with `start`ed lanes for `begin`, while memory is copied ahead. */
  precopied?: boolean;
  /** Serves touches and has the urgent lane in the place of this machine, which sees to both itself where there is none. */
  faults?: FaultThread;
  /** Called once, as soon as every page is here and before memory is released: from here on the child needs nobody. */
  onEverything?: () => void;
}

/**
 * The child's side of a transfer: a touch of a missing page is requested on the urgent lane, and whatever arrives is installed once and reported. Lost
 * lanes are dialled again for as long as it takes; meanwhile only those who touch a missing page wait.
 */
export class ChildMachine {
  /** What this child passes on to others of its instant, and is passed on by one of them. */
  readonly relay: ChildRelay;
  readonly #options: ChildMachineOptions;
  readonly #pages: ChildPages;
  readonly #link: Link;
  readonly #linked = deferred<void>();
  readonly #ended = deferred<ChildPhase>();
  #phase: ChildPhase = { phase: "dialling" };
  #verify: VerifyResult | undefined;
  readonly #reports: ChildReports;
  #retry: Timer | undefined;
  #retryMs = FIRST_RETRY_MS;
  #doneAttempts = 0;
  #closed = false;
  /** Memory is still copied ahead: nothing is missing yet. */
  #held: boolean;
  #lost: TransferProgress["lost"];

  constructor(options: ChildMachineOptions) {
    this.#options = options;
    this.#held = options.precopied === true;
    this.#pages = new ChildPages(options);
    this.#link = new Link({
      transfer: options.transfer,
      pageCount: options.memory.pageCount,
      epoch: options.recovered?.epoch ?? 0,
    });
    this.#reports = new ChildReports({
      clock: options.clock,
      lane: () => this.#link.pair.bulk,
      withholds: () => this.relay.full,
    });
    this.relay = new ChildRelay({
      ...options,
      pageCount: options.memory.pageCount,
      take: (frame) => this.#take(frame) && this.#onTaken(),
      onFed: (on) => void (this.#reports.told && this.#link.pair.bulk?.send({ kind: "relayed", on })),
      onRoom: () => this.#reports.soon(),
      onPassing: (passing) => (this.#pages.wantsContent = passing),
    });
    // A failure is reported through `ended`; nobody need be waiting for the lanes.
    this.#linked.promise.catch(() => {});
  }

  get phase(): ChildPhase {
    return this.#phase;
  }

  /** Resolves when both page lanes are there for the first time; rejects when the machine fails before. */
  get linked(): Promise<void> {
    return this.#linked.promise;
  }

  /** Resolves when every page is here and nothing is registered any more, or when the child cannot go on. */
  get ended(): Promise<ChildPhase> {
    return this.#ended.promise;
  }

  /** What the comparison of digests found; undefined before the end, or when none was asked for. */
  get verify(): VerifyResult | undefined {
    return this.#verify;
  }

  progress(): TransferProgress {
    const complete = this.#phase.phase === "complete";
    return {
      ...this.#pages.progress(),
      urgentBytes: this.#link.bytes("urgent"),
      bulkBytes: this.#link.bytes("bulk"),
      reconnects: this.#link.reconnects,
      relay: this.relay.progress(),
      linked: complete || this.#link.pair.linked,
      ...(this.#lost === undefined || complete ? {} : { lost: this.#lost }),
    };
  }

  /** Starts serving touches of missing pages and dials the parent. */
  start(): void {
    if (!this.#held) this.#serve();
    this.#dialLanes();
  }

  /** What was copied ahead is there, and the rest is missing: serves touches and asks for it, over the lanes there are. Once, after `start`. */
  begin(): void {
    assert(this.#held, "a child begins once, after memory was copied ahead");
    if (this.#closed) return;
    this.#held = false;
    this.#pages.recover();
    this.#serve();
    if (this.#link.pair.linked && !this.#closed) this.#onLinked();
  }

  /**
   * Lets go of the child without an end: its memory stays registered, so whoever touches a missing page waits for the next agent's machine. Nothing is told
   * through `ended`. May be called twice.
   */
  detach(): void {
    this.#closed = true;
    this.#options.faults?.stop();
    this.relay.close(RESTARTS);
    this.#dropLanes(RESTARTS);
  }

  /** Ends the machine before the child is complete. Memory is not released: a child without its pages must never run on zeros. */
  cancel(error: TransferError): void {
    this.#fail(error, { code: error.code, message: error.message, fatal: true });
  }

  #serve(): void {
    const { memory, faults } = this.#options;
    if (faults === undefined)
      memory.fill((pages) => this.#installing(() => this.#request(this.#pages.touched(pages))));
    else {
      faults.fill(this.#pages.share, {
        onTaken: (taken) => this.#onTakenElsewhere(taken),
        onFailed: (error) => this.#cannotInstall(error),
      });
    }
    if (this.#pages.complete) this.#becomeComplete();
  }

  /** The thread that serves touches has installed pages. */
  #onTakenElsewhere(pages: readonly TakenPages[]): void {
    if (this.#closed || this.#phase.phase === "complete") return;
    const { missing, taken } = this.#pages.takenElsewhere(pages);
    this.#reports.add(missing);
    const runs = runsOf(taken);
    if (runs.length > 0) this.relay.passOn(runs);
    this.#onTaken();
  }

  #request(pages: readonly number[]): void {
    for (let first = 0; first < pages.length; first += MAX_REQUEST_PAGES) {
      this.#link.pair.urgent?.send({ kind: "request", pages: pages.slice(first, first + MAX_REQUEST_PAGES) });
    }
  }

  #dialLanes(): void {
    const end = { code: "replaced", message: "this dial was given up", fatal: false };
    const pair = this.#link.replace(this.#link.epoch + 1, end);
    for (const name of ["urgent", "bulk"] as const) {
      this.#options.dial(name, pair.epoch).then(
        (lane) => {
          if (pair !== this.#link.pair || this.#closed) {
            lane.close(end);
            return;
          }
          pair.add(name, lane, {
            onFrame: (frame, frameBytes) => this.#onFrame(pair, name, frame, frameBytes),
            onEnd: (laneEnd) => this.#onLaneEnd(pair, laneEnd),
          });
          if (pair === this.#link.pair && pair.linked) this.#onLinked();
        },
        (thrown: unknown) => {
          const fatal = thrown instanceof Error && "fatal" in thrown && thrown.fatal === true;
          this.#onLaneEnd(pair, { code: codeOf(thrown), message: messageOf(thrown), fatal });
        },
      );
    }
  }

  #onLinked(): void {
    this.#retryMs = FIRST_RETRY_MS;
    this.#lost = undefined;
    if (this.#held) return this.#linked.resolve();
    if (this.#phase.phase === "dialling") this.#phase = { phase: "paging" };
    this.#request(this.#pages.requested);
    this.#linked.resolve();
    this.#reports.tellHave(this.#pages.received.runs(), () => this.#onTold());
  }

  /** The parent knows what is here; what came meanwhile on the urgent lane is reported like everything later. */
  #onTold(): void {
    if (this.#phase.phase === "paging" && this.#pages.complete) return this.#complete();
    if (this.relay.fed !== undefined) this.#link.pair.bulk?.send({ kind: "relayed", on: this.relay.fed });
    if (this.#phase.phase !== "complete") return this.#reports.soon();
    this.#reports.now();
    this.#sendDone();
  }

  #onLaneEnd(pair: LanePair, end: LaneEnd): void {
    if (pair !== this.#link.pair || this.#closed) return;
    this.#dropLanes({ code: "lane-lost", message: "the other lane of this link was lost", fatal: false });
    if (this.#phase.phase === "complete") {
      // Nothing is missing, so the parent's end does not matter; it is told a few times, then left to find out by itself.
      if (end.fatal || this.#doneAttempts >= MAX_DONE_ATTEMPTS) return this.#close();
    } else if (end.fatal) {
      // It may be told so before the command that says it comes.
      const code = end.code === "cancelled" ? "cancelled" : "parent-failed";
      this.#fail(new TransferError(code, end.message), end);
      return;
    }
    const { log, clock, transfer } = this.#options;
    this.#lost = { sinceUs: this.#lost?.sinceUs ?? clock.nowUs(), why: end.message };
    log.warn({ transfer, end, retryMs: this.#retryMs }, "page lanes lost; dialling again");
    this.#retry = clock.after(this.#retryMs, () => this.#dialLanes());
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  #dropLanes(end: LaneEnd): void {
    this.#link.drop(end);
    this.#reports.stop();
    this.#retry?.cancel();
  }

  #onFrame(pair: LanePair, lane: PageLane, frame: Frame, frameBytes: number): void {
    if (pair !== this.#link.pair) return;
    if (frame.kind === "pages") {
      if (!this.#take(frame)) return;
    } else if (lane === "bulk" && frame.kind === "hashes") {
      if (!this.#pages.takeDigests(frame.firstPage, frame.digests)) {
        throw new TransferError("peer-protocol", "hashes were sent to a child that did not ask for them");
      }
    } else if (lane === "bulk" && frame.kind === "done" && this.#phase.phase === "complete") {
      return this.#close();
    } else {
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on the ${lane} lane now`,
      );
    }
    if (lane === "bulk") this.#reports.credit(frameBytes);
    this.#onTaken();
  }

  /** Installs what is missing of a frame and passes on a frame that had any of it; false when that ended the child. */
  #take({ runs }: Extract<Frame, { kind: "pages" }>): boolean {
    return this.#installing(() => {
      const taken = this.#pages.take(runs);
      this.#reports.add(taken);
      if (taken.length > 0) this.relay.passOn(runs);
    });
  }

  #onTaken(): void {
    if (this.#phase.phase === "paging" && this.#pages.complete) this.#complete();
    else this.#reports.soon();
  }

  /** Runs what installs pages; false when this host could not, which ends the child: what it lacks now it can never get. */
  #installing(install: () => void): boolean {
    try {
      install();
      return true;
    } catch (thrown) {
      // A run that does not decode is the peer's fault, and the channel's to report.
      if (thrown instanceof WireError || codeOf(thrown) === "internal") throw thrown;
      this.#cannotInstall(thrown);
      return false;
    }
  }

  #cannotInstall(cause: unknown): void {
    const message = `pages could not be installed: ${messageOf(cause)}`;
    const error = new TransferError("child-failed", message, { cause });
    this.#fail(error, { code: error.code, message, fatal: true });
  }

  #complete(): void {
    this.#becomeComplete();
    if (!this.#reports.told) return;
    this.#reports.now();
    this.#sendDone();
  }

  #becomeComplete(): void {
    this.#verify = this.#pages.compare();
    this.relay.finish();
    this.#options.faults?.stop();
    this.#options.onEverything?.();
    this.#options.memory.release();
    this.#phase = { phase: "complete" };
    this.#ended.resolve(this.#phase);
  }

  #sendDone(): void {
    this.#doneAttempts += 1;
    this.#link.pair.bulk?.send({ kind: "done" });
    this.#retry?.cancel();
    const { pair } = this.#link;
    const end = {
      code: "no-answer",
      message: "the parent did not answer that the child is complete",
      fatal: false,
    };
    this.#retry = this.#options.clock.after(DONE_DEADLINE_MS, () => this.#onLaneEnd(pair, end));
  }

  #fail(error: TransferError, laneEnd: LaneEnd): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#phase = { phase: "failed", error };
    this.#closed = true;
    this.#options.faults?.stop();
    this.relay.close(laneEnd);
    this.#dropLanes(laneEnd);
    this.#linked.reject(error);
    this.#ended.resolve(this.#phase);
  }

  #close(): void {
    this.#closed = true;
    this.#dropLanes({ code: "complete", message: "the child is complete", fatal: true });
  }
}
