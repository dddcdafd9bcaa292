import {
  assert,
  codeOf,
  deferred,
  MAX_RECEIVED_RUNS,
  MAX_REQUEST_PAGES,
  messageOf,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import { WireError, type Frame } from "../wire/index.js";
import { ChildPages } from "./child-pages.js";
import { ChildRelay } from "./child-relay.js";
import { TransferError } from "./errors.js";
import { Link, type LanePair } from "./lane-pair.js";
import { RESTARTS } from "./parent-session.js";
import type { ChildNotes, DialLane, FillableMemory, LaneEnd, PageLane, PageRange } from "./ports.js";
import type { TransferProgress, VerifyResult } from "./progress.js";
import { mergeRanges, takeRuns } from "./ranges.js";

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5000;
/** How long a complete child waits for the parent's answer to `done` before it dials once more. */
const DONE_DEADLINE_MS = 5000;
/** A complete child needs nothing more; it stops telling its parent after so many attempts. */
const MAX_DONE_ATTEMPTS = 5;

/** Frames in which a child tells what it has that are sent before faults have their turn, and the pause after them, or while the network stack lags behind. */
const HAVE_FRAMES_PER_TURN = 8;
const HAVE_PAUSE_MS = 1;
/** Bytes the network stack may lag behind before that waits. */
const MAX_QUEUED_BYTES = 1024 * 1024;

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
  #reportRuns: PageRange[] = [];
  #creditBytes = 0;
  #flush: Timer | undefined;
  #retry: Timer | undefined;
  #retryMs = FIRST_RETRY_MS;
  #doneAttempts = 0;
  /** Over the present lanes, the parent has been told which pages are here. */
  #told = false;
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
    this.relay = new ChildRelay({
      ...options,
      pageCount: options.memory.pageCount,
      take: (frame) => this.#take(frame) && this.#onTaken(),
      onFed: (on) => void (this.#told && this.#link.pair.bulk?.send({ kind: "relayed", on })),
      onRoom: () => this.#reportSoon(),
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
    const { counts, received, pageCount, zeroPages, duplicates, latency, waiting } = this.#pages;
    return {
      total: pageCount,
      received: received.count,
      fault: counts.fault,
      push: counts.push,
      sweep: counts.sweep,
      zero: zeroPages,
      duplicates,
      urgentBytes: this.#link.bytes("urgent"),
      bulkBytes: this.#link.bytes("bulk"),
      faults: { waiting, ...latency.summary() },
      reconnects: this.#link.reconnects,
      relay: this.relay.progress(),
      linked: this.#phase.phase === "complete" || this.#link.pair.linked,
      ...(this.#lost === undefined || this.#phase.phase === "complete" ? {} : { lost: this.#lost }),
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
    this.relay.close(RESTARTS);
    this.#dropLanes(RESTARTS);
  }

  /** Ends the machine before the child is complete. Memory is not released: a child without its pages must never run on zeros. */
  cancel(error: TransferError): void {
    this.#fail(error, { code: error.code, message: error.message, fatal: true });
  }

  #serve(): void {
    this.#options.memory.fill((pages) => this.#installing(() => this.#request(this.#pages.touched(pages))));
    if (this.#pages.complete) this.#becomeComplete();
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
    this.#reportRuns = [];
    this.#creditBytes = 0;
    this.#told = false;
    this.#request(this.#pages.requested);
    this.#linked.resolve();
    this.#tellHave(this.#pages.received.runs());
  }

  /** Tells which pages are here, a few frames a turn: a large memory full of holes has millions of runs, and faults must not wait for all of them. */
  #tellHave(runs: Iterator<PageRange>): void {
    this.#flush = undefined;
    const { bulk } = this.#link.pair;
    for (let frames = 0; frames < HAVE_FRAMES_PER_TURN; frames += 1) {
      if ((bulk?.queuedBytes ?? 0) > MAX_QUEUED_BYTES) break;
      const some = takeRuns(runs, MAX_RECEIVED_RUNS);
      const last = some.length < MAX_RECEIVED_RUNS;
      bulk?.send({ kind: "have", last, runs: some });
      if (last) return this.#onTold();
    }
    this.#flush = this.#options.clock.after(HAVE_PAUSE_MS, () => this.#tellHave(runs));
  }

  /** The parent knows what is here; what came meanwhile on the urgent lane is reported like everything later. */
  #onTold(): void {
    this.#told = true;
    if (this.#phase.phase === "paging" && this.#pages.complete) return this.#complete();
    if (this.relay.fed !== undefined) this.#link.pair.bulk?.send({ kind: "relayed", on: this.relay.fed });
    if (this.#phase.phase !== "complete") return this.#reportSoon();
    if (this.#reportRuns.length > 0) this.#report();
    this.#sendDone();
  }

  #onLaneEnd(pair: LanePair, end: LaneEnd): void {
    if (pair !== this.#link.pair || this.#closed) return;
    this.#dropLanes({ code: "lane-lost", message: "the other lane of this link was lost", fatal: false });
    if (this.#phase.phase === "complete") {
      // Nothing is missing, so the parent's end does not matter; it is told a few times, then left to find out by itself.
      if (end.fatal || this.#doneAttempts >= MAX_DONE_ATTEMPTS) return this.#close();
    } else if (end.fatal) {
      this.#fail(new TransferError("parent-failed", end.message), end);
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
    this.#told = false;
    this.#flush?.cancel();
    this.#flush = undefined;
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
    if (lane === "bulk") this.#creditBytes += frameBytes;
    this.#onTaken();
  }

  /** Installs what is missing of a frame and passes on a frame that had any of it; false when that ended the child. */
  #take({ runs }: Extract<Frame, { kind: "pages" }>): boolean {
    return this.#installing(() => {
      const taken = this.#pages.take(runs);
      this.#reportRuns.push(...taken);
      if (taken.length > 0) this.relay.passOn(runs);
    });
  }

  #onTaken(): void {
    if (this.#phase.phase === "paging" && this.#pages.complete) this.#complete();
    else this.#reportSoon();
  }

  /** Runs what installs pages; false when this host could not, which ends the child: what it lacks now it can never get. */
  #installing(install: () => void): boolean {
    try {
      install();
      return true;
    } catch (thrown) {
      // A run that does not decode is the peer's fault, and the channel's to report.
      if (thrown instanceof WireError || codeOf(thrown) === "internal") throw thrown;
      const message = `pages could not be installed: ${messageOf(thrown)}`;
      const error = new TransferError("child-failed", message, { cause: thrown });
      this.#fail(error, { code: error.code, message, fatal: true });
      return false;
    }
  }

  #complete(): void {
    this.#becomeComplete();
    if (!this.#told) return;
    this.#report();
    this.#sendDone();
  }

  #becomeComplete(): void {
    this.#verify = this.#pages.compare();
    this.relay.finish();
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

  #reportSoon(): void {
    if (this.#closed || this.#flush !== undefined || !this.#told) return;
    if (this.#reportRuns.length === 0 && this.#credit === 0) return;
    this.#flush = this.#options.clock.soon(() => this.#report());
  }

  /** Bytes to give credit for: none while a child that is passed on to lags behind, so that the parent waits for it. */
  get #credit(): number {
    return this.relay.full ? 0 : this.#creditBytes;
  }

  #report(): void {
    this.#flush?.cancel();
    this.#flush = undefined;
    const runs = mergeRanges(this.#reportRuns);
    const credit = this.#credit;
    for (let first = 0; first === 0 || first < runs.length; first += MAX_RECEIVED_RUNS) {
      const creditBytes = first === 0 ? credit : 0;
      this.#link.pair.bulk?.send({
        kind: "received",
        creditBytes,
        runs: runs.slice(first, first + MAX_RECEIVED_RUNS),
      });
    }
    this.#reportRuns = [];
    this.#creditBytes -= credit;
  }

  #fail(error: TransferError, laneEnd: LaneEnd): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#phase = { phase: "failed", error };
    this.#closed = true;
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
