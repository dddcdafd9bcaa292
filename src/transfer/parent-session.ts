import { Bitmap, codeOf, deferred, messageOf, type Timer } from "../base/index.js";
import type { Frame } from "../wire/index.js";
import { BulkFlow, type FlowChange } from "./bulk-flow.js";
import type { PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import { Gate } from "./gate.js";
import type { InstantReader } from "./instant.js";
import { Link, RESTARTS, type LanePair } from "./lane-pair.js";
import { PageSupply } from "./page-supply.js";
import type { Answers, FrameLane, LaneEnd, PageLane, PageRange, ThreadLane } from "./ports.js";
import { NOTHING_MOVED, type TransferProgress } from "./progress.js";
import { RelayHold } from "./relay-hold.js";
import type { ParentSessionOptions, SessionPhase } from "./session-options.js";

/**
 * The parent's side of one child: it owes the child every page as it was at the instant until the child reports it received. Requests
 * are answered at once on the urgent lane; pushes go ahead of the sweep on the bulk lane, both within the window.
 */
export class ParentSession implements InstantReader {
  readonly transfer: number;
  readonly #options: ParentSessionOptions;
  readonly #supply: PageSupply;
  readonly #flow: BulkFlow;
  readonly #link: Link;
  readonly #hold: RelayHold;
  /** Open while another thread may answer requests. */
  readonly #gate = new Gate();
  readonly #linked = deferred<void>();
  readonly #ended = deferred<SessionPhase>();
  #phase: SessionPhase = { phase: "waiting-for-child" };
  /** The instant is there: pages may be sent. */
  #begun = false;
  #detached = false;
  /** Over the present lanes, the child has told which pages it has. */
  #resumed = false;
  /** What the child has told of it so far. */
  #had: Bitmap | undefined;
  #pump: Timer | undefined;
  #linkTimer: Timer | undefined;
  #lost: TransferProgress["lost"];

  constructor(options: ParentSessionOptions) {
    const { transfer, instant } = options;
    this.transfer = transfer;
    this.#options = options;
    this.#supply = new PageSupply(options);
    this.#flow = new BulkFlow(options.clock, options);
    this.#link = new Link({ transfer, pageCount: instant.pageCount });
    this.#hold = new RelayHold({
      clock: options.clock,
      given: () => instant.pageCount - this.owedCount - this.#supply.counts.fault,
      isDue: () => this.#canSend() && this.#supply.sweep,
      onRelease: () => this.#wake(),
    });
    // A failure is reported through `ended`; nobody need be waiting for the lanes.
    this.#linked.promise.catch(() => {});
    instant.addReader(this);
  }

  get phase(): SessionPhase {
    return this.#phase;
  }

  /** Resolves when both page lanes are there for the first time; rejects when the session ends before. */
  get linked(): Promise<void> {
    return this.#linked.promise;
  }

  /** Resolves when the child has everything, or the session failed. */
  get ended(): Promise<SessionPhase> {
    return this.#ended.promise;
  }

  progress(): TransferProgress {
    return {
      ...this.#supply.progress(),
      urgentBytes: this.#link.bytes("urgent"),
      bulkBytes: this.#link.bytes("bulk"),
      faults: NOTHING_MOVED.faults,
      reconnects: this.#link.reconnects,
      holding: this.#heldBack,
      linked: this.#phase.phase !== "waiting-for-child",
      ...(this.#lost === undefined ? {} : { lost: this.#lost }),
      compression: this.#flow.compression.progress(),
    };
  }

  /**
   * Takes a lane the child has dialled. A higher epoch replaces all lanes before it; a lower one is refused.
   * @param options.lz4 whether the child's side reads lz4; pages are sent raw otherwise.
   * @throws TransferError when the session has failed (its own error) or the lane is out of date (`peer-protocol`).
   */
  acceptLane(name: PageLane, epoch: number, lane: FrameLane | ThreadLane, options = { lz4: true }): void {
    if (this.#phase.phase === "failed") throw this.#phase.error;
    if (this.#detached) return lane.close(RESTARTS);
    const latest = this.#link.epoch;
    if (epoch < latest || (epoch === latest && this.#link.pair.has(name))) {
      throw new TransferError(
        "peer-protocol",
        `lane ${name} of epoch ${epoch} comes after one of epoch ${latest}`,
      );
    }
    if (epoch > latest) {
      this.#lanesLost();
      this.#link.replace(epoch, { code: "replaced", message: "the child dialled again", fatal: false });
    }
    if (!options.lz4) this.#flow.compression.forbid();
    const pair = this.#link.pair;
    const handlers = {
      onFrame: (frame: Frame) => this.#onFrame(pair, name, frame),
      onEnd: (end: LaneEnd) => this.#onLaneEnd(pair, end),
      onAnswered: (answers: Answers) => this.#onAnswered(pair, answers),
    };
    const { instant } = this.#options;
    pair.add(name, lane, handlers, { gate: this.#gate.buffer, held: instant.held, ...this.#supply.shared });
    if (pair === this.#link.pair && pair.linked) this.#onLinked();
  }

  /** The instant is there: pages may be sent from here on, in the first `quietMs` only answers unless the child runs. It is told the `digests`, to compare. */
  begin(options: { digests?: PageDigests; quietMs?: number }): void {
    this.#begun = true;
    this.#gate.open = true;
    this.#flow.quiet(options.quietMs ?? 0);
    if (options.digests !== undefined) this.#supply.setDigests(options.digests);
    this.#wake();
  }

  /** The child is out of reach and has to dial: from here on its absence counts, unless it does already. */
  awaitChild(why: string): void {
    const { clock, linkDeadlineMs } = this.#options;
    this.#lost ??= { sinceUs: clock.nowUs(), why };
    if (linkDeadlineMs === undefined || this.#linkTimer !== undefined) return;
    this.#linkTimer = clock.after(linkDeadlineMs, () => {
      const message = `the child's host was out of reach for ${linkDeadlineMs} ms: ${why}`;
      this.fail(new TransferError("link-lost", message));
    });
  }

  /** Another child passes on to this one, or is about to: what it may bring is not sent until it is known whether it does. */
  expectRelay(): void {
    if (this.#phase.phase === "waiting-for-child" || this.#phase.phase === "linked") this.#hold.hold();
  }

  /** No other child passes on to this one. */
  sendItself(): void {
    this.#hold.release();
  }

  /** The child is loaded: it touches what it needs from here on. */
  childRuns(): void {
    this.#supply.childRuns();
    this.#flow.quiet(0);
    this.setFlow({});
  }

  /** Holds the sweep or lets it go on. */
  setSweep(on: boolean): void {
    this.#supply.sweep = on;
    this.#wake();
  }

  /** Changes how fast bulk may go, at once. */
  setFlow(change: FlowChange): void {
    this.#flow.change(change);
    // It may be waiting for what an old rate asked for.
    this.#pump?.cancel();
    this.#pump = undefined;
    this.#wake();
  }

  /** Lets go of the session without an end: the child dials again, and the next agent's session goes on. May be called twice. */
  detach(): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#detached = true;
    this.#gate.open = false;
    this.#pump?.cancel();
    this.#linkTimer?.cancel();
    this.#hold.release();
    this.#lanesLost();
    this.#link.drop(RESTARTS);
  }

  /** Ends the session before its time: the child is told that there will be no more pages. */
  fail(error: TransferError): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    // Once the phase says so, no lane that ends meanwhile is mistaken for one that was lost.
    this.#phase = { phase: "failed", error };
    this.#gate.open = false;
    this.#options.onFailing?.();
    this.#lanesLost();
    this.#link.drop({ code: error.code, message: error.message, fatal: true });
    this.#linked.reject(error);
    this.#end();
  }

  /**
   * The child's agent says that the child has every page, perhaps when no lane is there to say so: it is owed nothing more. A session that has ended stays
   * as it is.
   */
  conclude(): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#phase = { phase: "complete" };
    this.#lanesLost();
    this.#link.drop({ code: "complete", message: "the child is complete", fatal: true });
    this.#supply.owed.reset();
    this.#linked.resolve();
    this.#end();
  }

  get owedCount(): number {
    return this.#supply.owed.count;
  }

  giveUp(waitedMs: number): void {
    const message = `the parent's writers waited ${waitedMs} ms for a child that took no page; it was given up`;
    this.fail(new TransferError("stalled", message));
  }

  owes(page: number): boolean {
    return this.#supply.owed.has(page);
  }

  onCopied(page: number): void {
    this.#supply.push(page);
    this.#wake();
  }

  #onLinked(): void {
    this.#linkTimer?.cancel();
    this.#linkTimer = undefined;
    this.#lost = undefined;
    if (this.#phase.phase === "waiting-for-child") this.#phase = { phase: "linked" };
    this.#linked.resolve();
    this.#wake();
  }

  #onLaneEnd(pair: LanePair, end: LaneEnd): void {
    if (pair !== this.#link.pair || this.#phase.phase === "failed" || this.#detached) return;
    if (end.fatal && this.#phase.phase !== "complete") {
      this.fail(new TransferError("child-failed", end.message));
      return;
    }
    this.#lanesLost();
    this.#link.drop({ code: "lane-lost", message: "the other lane of this link was lost", fatal: false });
    if (this.#phase.phase === "complete") return;
    this.#phase = { phase: "waiting-for-child" };
    const { log } = this.#options;
    log.warn({ transfer: this.transfer, end }, "page lanes lost; waiting for the child's host to dial again");
    this.awaitChild(end.message);
  }

  #lanesLost(): void {
    // Over new lanes, the child says again whether another passes on to it.
    if (this.#resumed) this.#hold.release();
    this.#resumed = false;
    this.#gate.aroundPages = 0;
    this.#had = undefined;
    this.#flow.reset();
  }

  #onFrame(pair: LanePair, lane: PageLane, frame: Frame): void {
    if (pair !== this.#link.pair) return;
    if (lane === "urgent" && frame.kind === "request") this.#onRequest(frame.pages);
    else if (lane === "bulk" && frame.kind === "have") this.#onHave(frame.runs, frame.last);
    else if (lane === "bulk" && frame.kind === "received" && this.#resumed)
      this.#onReceived(frame.runs, frame.creditBytes);
    else if (lane === "bulk" && frame.kind === "done" && this.#resumed) this.#onDone();
    else if (lane === "bulk" && frame.kind === "relayed" && this.#resumed) this.#onRelayed(frame.on);
    else
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on the ${lane} lane now`,
      );
  }

  #onRequest(pages: readonly number[]): void {
    if (!this.#begun)
      throw new TransferError("peer-protocol", "a page was requested before the fork's instant");
    if (this.#phase.phase === "complete") return;
    this.#flow.urgent();
    for (const page of pages) {
      const answer = this.#supply.answer(page);
      if (answer !== undefined) this.#link.pair.urgent?.send(answer);
    }
    this.#wake();
  }

  /** Another thread has answered. */
  #onAnswered(pair: LanePair, answers: Answers): void {
    if (pair !== this.#link.pair || this.#phase.phase === "complete") return;
    this.#flow.answered(answers.aroundBytes);
    this.#supply.answered(answers);
    this.#wake();
  }

  #onHave(runs: readonly PageRange[], last: boolean): void {
    if (this.#resumed) throw new TransferError("peer-protocol", "the child told twice which pages it has");
    this.#onReceived(runs, 0);
    this.#had ??= new Bitmap(this.#supply.pageCount);
    for (const { first, count } of runs) this.#had.setRun(first, count);
    if (!last) return;
    this.#supply.oweAllBut(this.#had);
    this.#had = undefined;
    const lost = this.#begun ? this.#supply.firstLost() : undefined;
    if (lost !== undefined) {
      // It must never come to this; should it, then no page may be made up.
      const message = `the child lacks page ${lost}, whose content at the instant is not here any more`;
      return this.fail(new TransferError("parent-failed", message));
    }
    this.#resumed = true;
    this.#supply.restart();
    this.#wake();
  }

  #onReceived(runs: readonly PageRange[], creditBytes: number): void {
    if (!this.#flow.credited(creditBytes)) {
      throw new TransferError(
        "peer-protocol",
        `the child credits ${creditBytes} bytes, more than are in flight`,
      );
    }
    if (runs.length > 0 && !this.#begun) {
      throw new TransferError("peer-protocol", "pages were reported received before the fork's instant");
    }
    this.#supply.received(runs);
    this.#wake();
  }

  #onDone(): void {
    const owed = this.#supply.owed.count;
    if (owed > 0)
      throw new TransferError("peer-protocol", `the child says it is done, but ${owed} pages are owed`);
    // The child closes its lanes itself, once it has read this; it may also have to ask again over new ones.
    this.#link.pair.bulk?.send({ kind: "done" });
    if (this.#phase.phase === "complete") return;
    this.#phase = { phase: "complete" };
    this.#end();
  }

  #onRelayed(on: boolean): void {
    if (on) this.expectRelay();
    else this.#hold.release();
  }

  #end(): void {
    this.#gate.open = false;
    this.#hold.release();
    this.#pump?.cancel();
    this.#linkTimer?.cancel();
    this.#options.instant.removeReader(this);
    this.#supply.end({ complete: this.#phase.phase === "complete" });
    this.#ended.resolve(this.#phase);
  }

  #wake(): void {
    const goesAround = this.#resumed && this.#supply.sweep && !this.#heldBack;
    this.#gate.aroundPages = goesAround ? this.#flow.aroundPages : 0;
    if (this.#pump !== undefined || this.#heldBack || !this.#canSend()) return;
    this.#pump = this.#options.clock.soon(() => this.#sendBulk());
  }

  #canSend(): boolean {
    return (
      !this.#detached && this.#begun && this.#phase.phase === "linked" && this.#resumed && this.#flow.open
    );
  }

  /** Another child brings what is owed; digests come from here in any case. */
  get #heldBack(): boolean {
    return this.#hold.holding && this.owedCount > 0;
  }

  #sendBulk(): void {
    this.#pump = undefined;
    try {
      this.#sendFrames();
    } catch (thrown) {
      if (codeOf(thrown) === "internal") throw thrown;
      // Nobody calls this who could be told: one child's pages must not take the agent down.
      const message = `the parent's memory cannot be read: ${messageOf(thrown)}`;
      this.fail(new TransferError("parent-failed", message, { cause: thrown }));
    }
  }

  #sendFrames(): void {
    for (let frames = this.#flow.takeTurn(); frames > 0; frames -= 1) {
      const bulk = this.#link.pair.bulk;
      if (this.#heldBack || !this.#canSend() || bulk === undefined) return;
      const waitMs = this.#flow.waitMs(bulk.queuedBytes);
      if (waitMs > 0) {
        this.#pump = this.#options.clock.after(waitMs, () => this.#sendBulk());
        return;
      }
      const frame = this.#supply.next(this.#flow.sweepPages, { compress: this.#flow.compression.on });
      if (frame === undefined) return this.#flow.compression.idle();
      this.#flow.sent(frame, bulk.send(frame));
    }
    this.#wake();
  }
}
