import {
  Bitmap,
  BoundedQueue,
  deferred,
  MAX_FRAME_HASHES,
  PAGE_BYTES,
  SWEEP_RUN_PAGES,
  unreachable,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import { packRun, type Frame, type Origin, type PageRun } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import type { PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import type { Instant, InstantReader } from "./instant.js";
import type { FrameLane, LaneEnd, PageLane, PageRange } from "./ports.js";
import { OriginCounts, type TransferProgress } from "./progress.js";
import { AfterFaultOrder, type SweepOrder } from "./sweep-order.js";
import { AdaptiveWindow } from "./window.js";
import { splitZeroPages } from "./zero-pages.js";

/** Bulk frames sent before the event loop may look at faults and requests again. */
const FRAMES_PER_TURN = 4;
/** Bytes the network stack may lag behind before the sweep pauses for a turn. */
const MAX_QUEUED_BYTES = 1024 * 1024;

/** Where a session stands. `linked` says that both page lanes of one epoch are there. */
export type SessionPhase =
  | { phase: "waiting-for-child" }
  | { phase: "linked" }
  | { phase: "complete" }
  | { phase: "failed"; error: TransferError };

interface Link {
  epoch: number;
  urgent?: FrameChannel;
  bulk?: FrameChannel;
  /** The child has told which pages it has; before that nothing is pushed or swept. */
  resumed: boolean;
}

export interface ParentSessionOptions {
  transfer: number;
  instant: Instant;
  clock: Clock;
  log: Log;
  compress: boolean;
  /** False holds the sweep: then only faults and pushes move pages. */
  sweep: boolean;
  /** Bytes of bulk page data per second; undefined for no limit. */
  rateBytesPerSecond?: number;
  /** How long the child may be out of reach before it is given up, in ms; undefined for ever. */
  linkDeadlineMs?: number;
  order?: SweepOrder;
  /** Most bytes in flight on the bulk lane; the adaptive window stays below it. */
  maxWindowBytes?: number;
}

/**
 * The parent's side of one child: it owes the child every page as it was at the instant until the child reports it received. Requests are answered at once on
 * the urgent lane; pushes go ahead of the sweep on the bulk lane, both within the window.
 */
export class ParentSession implements InstantReader {
  readonly transfer: number;
  readonly owed: Bitmap;
  readonly sent: Bitmap;
  readonly #options: ParentSessionOptions;
  readonly #order: SweepOrder;
  readonly #window: AdaptiveWindow;
  readonly #counts = new OriginCounts();
  readonly #runBuffer = new Uint8Array(SWEEP_RUN_PAGES * PAGE_BYTES);
  readonly #pushes: BoundedQueue<number>;
  #zero = 0;
  #link: Link = { epoch: 0, resumed: false };
  #phase: SessionPhase = { phase: "waiting-for-child" };
  #begun = false;
  #sweep: boolean;
  #digests: PageDigests | undefined;
  #digestCursor = 0;
  #pump: Timer | undefined;
  #linkTimer: Timer | undefined;
  #lostBytes = { urgent: 0, bulk: 0 };
  #paceFromUs = 0;
  #settled = false;
  readonly #linked = deferred<void>();
  readonly #ended = deferred<SessionPhase>();

  constructor(options: ParentSessionOptions) {
    this.transfer = options.transfer;
    this.#options = options;
    this.#sweep = options.sweep;
    this.#window = new AdaptiveWindow(options.maxWindowBytes);
    this.#order = options.order ?? new AfterFaultOrder();
    this.owed = new Bitmap(options.instant.pageCount);
    this.sent = new Bitmap(options.instant.pageCount);
    this.owed.fill();
    // A page is copied once, so it is queued once.
    this.#pushes = new BoundedQueue(options.instant.pageCount);
    // A failure is reported through `ended`; nobody need be waiting for the lanes.
    this.#linked.promise.catch(() => {});
    options.instant.addReader(this);
  }

  get phase(): SessionPhase {
    return this.#phase;
  }

  get pageCount(): number {
    return this.#options.instant.pageCount;
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
    const received = this.pageCount - this.owed.count;
    const bytes = (lane: PageLane) => this.#lostBytes[lane] + (this.#link[lane]?.bytes ?? 0);
    return {
      total: this.pageCount,
      received,
      fault: this.#counts.fault,
      push: this.#counts.push,
      sweep: this.#counts.sweep,
      zero: this.#zero,
      duplicates: 0,
      urgentBytes: bytes("urgent"),
      bulkBytes: bytes("bulk"),
      faults: { count: 0, waiting: 0, p50Us: 0, p99Us: 0, maxUs: 0 },
      reconnects: Math.max(0, this.#link.epoch - 1),
    };
  }

  /**
   * Takes a lane the child has dialled. A higher epoch replaces all lanes before it; a lower one is refused.
   * @throws TransferError when the session has ended (`cancelled`) or the lane is out of date (`peer-protocol`).
   */
  acceptLane(name: PageLane, epoch: number, lane: FrameLane): void {
    if (this.#phase.phase === "failed") throw this.#phase.error;
    if (epoch < this.#link.epoch || (epoch === this.#link.epoch && this.#link[name] !== undefined)) {
      throw new TransferError(
        "peer-protocol",
        `lane ${name} of epoch ${epoch} comes after one of epoch ${this.#link.epoch}`,
      );
    }
    if (epoch > this.#link.epoch) {
      this.#dropLink({ code: "replaced", message: "the child dialled again", fatal: false });
      this.#link = { epoch, resumed: false };
    }
    const link = this.#link;
    link[name] = new FrameChannel({
      lane,
      transfer: this.transfer,
      pageCount: this.pageCount,
      handlers: {
        onFrame: (frame, frameBytes) => this.#onFrame(link, name, frame, frameBytes),
        onEnd: (end) => this.#onLaneEnd(link, end),
      },
    });
    if (link.urgent !== undefined && link.bulk !== undefined) this.#onLinked();
  }

  /** The instant is there: pages may be sent from here on. `digests` are told to the child, for it to compare. */
  begin(options: { digests?: PageDigests }): void {
    this.#begun = true;
    this.#digests = options.digests;
    this.#wake();
  }

  /** Holds the sweep or lets it go on. */
  setSweep(on: boolean): void {
    this.#sweep = on;
    this.#wake();
  }

  /** Ends the session before its time: the child is told that there will be no more pages. */
  fail(error: TransferError): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#end({ phase: "failed", error }, { code: error.code, message: error.message, fatal: true });
  }

  owes(page: number): boolean {
    return this.owed.has(page);
  }

  onCopied(page: number): void {
    this.#pushes.offer(page);
    this.#wake();
  }

  hasCopy(page: number): boolean {
    return this.#options.instant.hasCopy(page);
  }

  nextData(page: number): PageRange | undefined {
    return this.#options.instant.nextData(page);
  }

  #onLinked(): void {
    this.#linkTimer?.cancel();
    this.#linkTimer = undefined;
    if (this.#phase.phase === "waiting-for-child") this.#phase = { phase: "linked" };
    this.#linked.resolve();
    this.#wake();
  }

  #onLaneEnd(link: Link, end: LaneEnd): void {
    if (link !== this.#link || this.#phase.phase === "failed") return;
    this.#dropLink({ code: "lane-lost", message: "the other lane of this link was lost", fatal: end.fatal });
    if (this.#phase.phase === "complete") return;
    if (end.fatal) {
      this.#end({ phase: "failed", error: new TransferError("child-failed", end.message) }, end);
      return;
    }
    this.#phase = { phase: "waiting-for-child" };
    this.#options.log.warn(
      { transfer: this.transfer, end },
      "page lanes lost; waiting for the child's host to dial again",
    );
    const deadlineMs = this.#options.linkDeadlineMs;
    if (deadlineMs === undefined || this.#linkTimer !== undefined) return;
    this.#linkTimer = this.#options.clock.after(deadlineMs, () => {
      this.fail(
        new TransferError(
          "link-lost",
          `the child's host was out of reach for ${deadlineMs} ms: ${end.message}`,
        ),
      );
    });
  }

  #dropLink(end: LaneEnd): void {
    for (const lane of ["urgent", "bulk"] as const) {
      this.#lostBytes[lane] += this.#link[lane]?.bytes ?? 0;
      this.#link[lane]?.close(end);
      delete this.#link[lane];
    }
    this.#link.resumed = false;
    this.sent.reset();
    this.#window.reset();
  }

  #onFrame(link: Link, lane: PageLane, frame: Frame, frameBytes: number): void {
    if (link !== this.#link || frameBytes === 0) return;
    if (lane === "urgent" && frame.kind === "request") this.#onRequest(frame.pages);
    else if (lane === "bulk" && frame.kind === "have") this.#onHave(frame.runs, frame.last);
    else if (lane === "bulk" && frame.kind === "received" && link.resumed)
      this.#onReceived(frame.runs, frame.creditBytes);
    else if (lane === "bulk" && frame.kind === "done" && link.resumed) this.#onDone();
    else
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on the ${lane} lane now`,
      );
  }

  #onRequest(pages: readonly number[]): void {
    if (!this.#begun)
      throw new TransferError("peer-protocol", "a page was requested before the fork's instant");
    const urgent = this.#link.urgent;
    if (urgent === undefined) return;
    for (const page of pages) {
      // What the child reported received it does not need, and its content may be gone.
      if (!this.owed.has(page)) continue;
      const bytes = this.#runBuffer.subarray(0, PAGE_BYTES);
      this.#options.instant.read({ first: page, count: 1 }, bytes);
      // Never compressed: a waiting processor costs more than three kilobytes.
      const run = packRun({ firstPage: page, origin: "fault", bytes, compress: false });
      this.sent.set(page);
      this.#count(run);
      urgent.send({ kind: "pages", runs: [run] });
      this.#order.onFault(page);
    }
    this.#wake();
  }

  #onHave(runs: readonly PageRange[], last: boolean): void {
    if (this.#link.resumed)
      throw new TransferError("peer-protocol", "the child told twice which pages it has");
    this.#onReceived(runs, 0);
    if (!last) return;
    this.#link.resumed = true;
    this.#digestCursor = 0;
    // What was sent over the lost lanes and is still owed has to be sent anew, copies first.
    this.#pushes.clear();
    for (const page of this.#options.instant.copiedPages()) if (this.owed.has(page)) this.#pushes.offer(page);
    this.#wake();
  }

  #onReceived(runs: readonly PageRange[], creditBytes: number): void {
    if (!this.#window.credited(creditBytes, this.#options.clock.nowUs())) {
      throw new TransferError(
        "peer-protocol",
        `the child credits ${creditBytes} bytes, more than are in flight`,
      );
    }
    if (runs.length > 0 && !this.#begun)
      throw new TransferError("peer-protocol", "pages were reported before the fork's instant");
    for (const run of runs) {
      for (let page = run.first; page < run.first + run.count; page += 1) this.owed.clear(page);
    }
    this.#options.instant.settle(runs);
    this.#wake();
  }

  #onDone(): void {
    if (this.owed.count > 0)
      throw new TransferError("peer-protocol", `the child is done but ${this.owed.count} pages are owed`);
    this.#link.bulk?.send({ kind: "done" });
    if (this.#phase.phase === "complete") return;
    this.#end({ phase: "complete" }, undefined);
  }

  #end(phase: SessionPhase, laneEnd: LaneEnd | undefined): void {
    this.#phase = phase;
    this.#pump?.cancel();
    this.#linkTimer?.cancel();
    // After completion the child closes its lanes itself, once it has read the answer to `done`.
    if (laneEnd !== undefined) this.#dropLink(laneEnd);
    if (phase.phase === "failed") this.#linked.reject(phase.error);
    this.#options.instant.removeReader(this);
    this.#pushes.clear();
    if (!this.#settled) this.#ended.resolve(phase);
    this.#settled = true;
  }

  #wake(): void {
    if (this.#pump !== undefined || !this.#canSend()) return;
    this.#pump = this.#options.clock.soon(() => {
      this.#pump = undefined;
      this.#sendBulk();
    });
  }

  #canSend(): boolean {
    return this.#begun && this.#phase.phase === "linked" && this.#link.resumed && this.#window.open;
  }

  #sendBulk(): void {
    for (let frames = 0; frames < FRAMES_PER_TURN; frames += 1) {
      const bulk = this.#link.bulk;
      if (!this.#canSend() || bulk === undefined) return;
      if (bulk.queuedBytes > MAX_QUEUED_BYTES || this.#pacedFor() > 0) {
        this.#later();
        return;
      }
      const frame = this.#nextBulkFrame();
      if (frame === undefined) return;
      const sentBytes = bulk.send(frame);
      const nowUs = this.#options.clock.nowUs();
      this.#window.sent(sentBytes, nowUs);
      const rate = this.#options.rateBytesPerSecond;
      if (rate !== undefined) this.#paceFromUs = Math.max(this.#paceFromUs, nowUs) + (sentBytes / rate) * 1e6;
    }
    this.#wake();
  }

  #pacedFor(): number {
    return this.#options.rateBytesPerSecond === undefined
      ? 0
      : this.#paceFromUs - this.#options.clock.nowUs();
  }

  #later(): void {
    if (this.#pump !== undefined) return;
    this.#pump = this.#options.clock.after(Math.max(1, Math.ceil(this.#pacedFor() / 1000)), () => {
      this.#pump = undefined;
      this.#sendBulk();
    });
  }

  #nextBulkFrame(): Frame | undefined {
    const pushes = this.#takePushes();
    if (pushes.length > 0) return { kind: "pages", runs: pushes };
    if (!this.#sweep) return undefined;
    const step = this.#order.next(this);
    if (step === undefined) return this.#nextDigests();
    this.sent.setRun(step.range.first, step.range.count);
    if (step.kind === "data") return { kind: "pages", runs: this.#readRuns(step.range, "sweep") };
    const run: PageRun = {
      firstPage: step.range.first,
      pageCount: step.range.count,
      encoding: "zero",
      origin: "sweep",
      data: new Uint8Array(0),
    };
    this.#count(run);
    return { kind: "pages", runs: [run] };
  }

  #takePushes(): PageRun[] {
    const runs: PageRun[] = [];
    while (runs.length < SWEEP_RUN_PAGES) {
      const page = this.#pushes.take();
      if (page === undefined) break;
      if (!this.owed.has(page) || this.sent.has(page)) continue;
      this.sent.set(page);
      runs.push(...this.#readRuns({ first: page, count: 1 }, "push"));
    }
    return runs;
  }

  #readRuns(range: PageRange, origin: Origin): PageRun[] {
    const bytes = new Uint8Array(range.count * PAGE_BYTES);
    this.#options.instant.read(range, bytes);
    return splitZeroPages(bytes).map((piece) => {
      const content = bytes.subarray(piece.first * PAGE_BYTES, (piece.first + piece.count) * PAGE_BYTES);
      const run = packRun({
        firstPage: range.first + piece.first,
        origin,
        bytes: content,
        compress: this.#options.compress,
      });
      this.#count(run);
      return run;
    });
  }

  #nextDigests(): Frame | undefined {
    if (this.#digests === undefined || this.#digestCursor >= this.pageCount) return undefined;
    const firstPage = this.#digestCursor;
    const count = Math.min(MAX_FRAME_HASHES, this.pageCount - firstPage);
    this.#digestCursor += count;
    return { kind: "hashes", firstPage, digests: this.#digests.slice(firstPage, count) };
  }

  #count(run: PageRun): void {
    this.#counts.add(run.origin, run.pageCount);
    switch (run.encoding) {
      case "zero":
        this.#zero += run.pageCount;
        return;
      case "raw":
      case "lz4":
        return;
      default:
        unreachable(run.encoding);
    }
  }
}
