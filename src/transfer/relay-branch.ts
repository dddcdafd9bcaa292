import {
  CALM_FRAME_PAGES,
  MAX_FRAME_RUNS,
  PAGE_BYTES,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import { runBytes, unpackRun, type Frame, type PageRun } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import { TransferError } from "./errors.js";
import type { FrameLane, LaneEnd } from "./ports.js";
import { AdaptiveWindow } from "./window.js";

/** Bytes of the runs of one frame, about those of the sweep's longest: what came of faults in a moment may be more than a frame may hold. */
const MOST_FRAME_BYTES = CALM_FRAME_PAGES * (PAGE_BYTES + 16);
/** Bytes that may wait for one child before whoever sends them is held up. */
const FULL_BYTES = 4 * 1024 * 1024;
/** Bytes that may wait at the most: what is on the way to a relay that holds up its own source still comes. */
const MAX_WAITING_BYTES = 16 * 1024 * 1024;
/** A child that takes nothing for so long holds up nobody: what waits for it is dropped, and its parent sends that itself. */
const STALL_MS = 1000;
/** How long the child may take to end the lane once it was told that nothing more comes. */
const LINGER_MS = 5000;
/** Bytes the network stack may lag behind before sending pauses for a moment. */
const MAX_QUEUED_BYTES = 1024 * 1024;
const NETWORK_PAUSE_MS = 1;

/** How a relay's lane ends when there is nothing more to pass on. */
const PASSED_ON: LaneEnd = { code: "complete", message: "all there was to pass on was sent", fatal: true };

interface Waiting {
  runs: PageRun[];
  pages: number;
  bytes: number;
}

export interface RelayBranchOptions {
  /** The transfer of the child that is passed on to. */
  transfer: number;
  pageCount: number;
  clock: Clock;
  log: Log;
  /** What held up the source has been taken, or dropped. */
  onRoom(): void;
  /** Nothing is passed on to this child any more. Called once. */
  onOver(): void;
}

/**
 * What one child passes on to another, over a lane which that other child dials: frames of pages as they come, within a window. What is
 * not passed on, because the lane was lost or its child takes nothing, the parent still owes that child.
 */
export class RelayBranch {
  readonly #options: RelayBranchOptions;
  readonly #window = new AdaptiveWindow();
  #channel: FrameChannel | undefined;
  #epoch = 0;
  #lz4 = true;
  #waiting: Waiting[] = [];
  /** So many of them, the first, somebody waits for: another child of the same instant, or the parent's writer. */
  #waitingAhead = 0;
  #waitingBytes = 0;
  /** Nothing waits, because the child took nothing for too long; it ends when the child takes something. */
  #stalled = false;
  #stall: Timer | undefined;
  #pause: Timer | undefined;
  #finishing = false;
  #told = false;
  #over = false;
  #pages = 0;
  #dropped = 0;

  constructor(options: RelayBranchOptions) {
    this.#options = options;
  }

  /** True while whoever sends pages to this host should wait. */
  get full(): boolean {
    return this.#waitingBytes >= FULL_BYTES;
  }

  /** Pages passed on and pages that were not, whatever becomes of them. */
  get counts(): { pages: number; dropped: number } {
    return { pages: this.#pages, dropped: this.#dropped };
  }

  /**
   * Takes a lane the child has dialled. A higher epoch replaces the lane before it.
   * @param options.lz4 whether the child's side reads lz4.
   * @throws TransferError `peer-protocol` when the lane is out of date or nothing is passed on any more.
   */
  acceptLane(epoch: number, lane: FrameLane, options: { lz4: boolean }): void {
    if (this.#over) throw new TransferError("peer-protocol", "nothing is passed on to this child any more");
    if (epoch <= this.#epoch)
      throw new TransferError(
        "peer-protocol",
        `a relay's lane of epoch ${epoch} comes after one of ${this.#epoch}`,
      );
    this.#channel?.close({ code: "replaced", message: "the child dialled again", fatal: false });
    this.#epoch = epoch;
    this.#lz4 = options.lz4;
    this.#window.reset();
    const { transfer, pageCount } = this.#options;
    const channel: FrameChannel = new FrameChannel({
      lane,
      transfer,
      pageCount,
      handlers: {
        onFrame: (frame) => channel === this.#channel && this.#onFrame(frame),
        onEnd: (end) => channel === this.#channel && this.#onLaneEnd(end),
      },
    });
    this.#channel = channel;
    channel.attach();
    this.#told = false;
    this.#moved();
    this.#pump();
  }

  /**
   * Passes runs on, now or as soon as the child takes them: those of faults and pushes ahead of the sweep. They are views of what was received, and are copied
   * where they have to wait.
   */
  passOn(runs: readonly PageRun[]): void {
    if (this.#over || this.#finishing) return;
    for (const frame of this.#framesOf(runs)) {
      if (this.#waiting.length === 0 && this.#canSend()) this.#send(frame);
      else this.#wait(frame);
    }
  }

  /** Nothing more comes: what waits is passed on, then the child is told so. */
  finish(): void {
    if (this.#over || this.#finishing) return;
    this.#finishing = true;
    if (this.#channel === undefined) return this.close(PASSED_ON);
    this.#pump();
  }

  /** Ends it at once. May be called twice. */
  close(end: LaneEnd): void {
    if (this.#over) return;
    const wasFull = this.full;
    this.#over = true;
    this.#stall?.cancel();
    this.#pause?.cancel();
    this.#waiting = [];
    this.#waitingAhead = 0;
    this.#waitingBytes = 0;
    this.#channel?.close(end);
    this.#channel = undefined;
    this.#options.onOver();
    if (wasFull) this.#options.onRoom();
  }

  /** What the child's side can read, in frames of a length that is allowed. */
  #framesOf(runs: readonly PageRun[]): Waiting[] {
    const frames: PageRun[][] = [];
    let frame: PageRun[] = [];
    let bytes = 0;
    for (const run of runs) {
      const readable: PageRun =
        this.#lz4 || run.encoding !== "lz4" ? run : { ...run, encoding: "raw", data: unpackRun(run) };
      bytes += runBytes(readable);
      if (frames.length === 0 || bytes > MOST_FRAME_BYTES || frame.length === MAX_FRAME_RUNS) {
        frames.push((frame = []));
        bytes = runBytes(readable);
      }
      frame.push(readable);
    }
    return frames.map(waitingOf);
  }

  #canSend(): boolean {
    const channel = this.#channel;
    return channel !== undefined && this.#window.open && channel.queuedBytes <= MAX_QUEUED_BYTES;
  }

  #send({ runs, pages }: Waiting): void {
    const bytes = this.#channel?.send({ kind: "pages", runs }) ?? 0;
    this.#window.sent(bytes, this.#options.clock.nowUs());
    this.#pages += pages;
    this.#watchStall();
  }

  #wait(frame: Waiting): void {
    if (this.#stalled || this.#waitingBytes + frame.bytes > MAX_WAITING_BYTES) {
      this.#dropped += frame.pages;
      return;
    }
    const isAhead = frame.runs.every(({ origin }) => origin !== "sweep");
    const place = isAhead ? this.#waitingAhead++ : this.#waiting.length;
    this.#waiting.splice(place, 0, { ...frame, runs: copiesOf(frame.runs) });
    this.#waitingBytes += frame.bytes;
    this.#watchStall();
    this.#pump();
  }

  #pump(): void {
    if (this.#over) return;
    const wasFull = this.full;
    let taken = 0;
    for (const frame of this.#waiting) {
      if (!this.#canSend()) break;
      taken += 1;
      this.#waitingBytes -= frame.bytes;
      this.#send(frame);
    }
    if (taken > 0) this.#waiting.splice(0, taken);
    this.#waitingAhead = Math.max(0, this.#waitingAhead - taken);
    if (wasFull && !this.full) this.#options.onRoom();
    if (this.#waiting.length > 0) this.#retryWhenNetworkLags();
    else if (this.#finishing && !this.#told) this.#tellDone();
  }

  /** The window opens by credit, which comes by itself; the network stack says nothing. */
  #retryWhenNetworkLags(): void {
    if (this.#pause !== undefined || this.#channel === undefined || !this.#window.open) return;
    this.#pause = this.#options.clock.after(NETWORK_PAUSE_MS, () => {
      this.#pause = undefined;
      this.#pump();
    });
  }

  #tellDone(): void {
    this.#told = true;
    this.#channel?.send({ kind: "done" });
    this.#stall?.cancel();
    this.#stall = this.#options.clock.after(LINGER_MS, () => this.close(PASSED_ON));
  }

  #onFrame(frame: Frame): void {
    if (frame.kind !== "received" || frame.runs.length > 0)
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on a relay's lane`,
      );
    if (!this.#window.credited(frame.creditBytes, this.#options.clock.nowUs()))
      throw new TransferError(
        "peer-protocol",
        `the child credits ${frame.creditBytes} bytes, more than are in flight`,
      );
    this.#moved();
    this.#pump();
  }

  #onLaneEnd(end: LaneEnd): void {
    this.#channel = undefined;
    this.#window.reset();
    // It may dial again; what waits is kept for as long as for one that takes nothing.
    if (end.fatal || this.#finishing) this.close(end);
    else this.#watchStall();
  }

  #moved(): void {
    this.#stalled = false;
    if (this.#told) return;
    this.#stall?.cancel();
    this.#stall = undefined;
    this.#watchStall();
  }

  #watchStall(): void {
    if (this.#stall !== undefined || this.#over) return;
    if (this.#waiting.length === 0 && this.#window.inFlightBytes === 0) return;
    this.#stall = this.#options.clock.after(STALL_MS, () => {
      this.#stall = undefined;
      this.#onStall();
    });
  }

  #onStall(): void {
    const { log, transfer } = this.#options;
    const wasFull = this.full;
    this.#stalled = true;
    for (const { pages } of this.#waiting) this.#dropped += pages;
    this.#waiting = [];
    this.#waitingAhead = 0;
    this.#waitingBytes = 0;
    log.info({ transfer }, "a child takes nothing of what is passed on to it; its parent sends it that");
    if (wasFull) this.#options.onRoom();
    if (this.#finishing) this.close(PASSED_ON);
  }
}

function waitingOf(runs: PageRun[]): Waiting {
  let pages = 0;
  let bytes = 0;
  for (const run of runs) {
    pages += run.pageCount;
    bytes += runBytes(run);
  }
  return { runs, pages, bytes };
}

/** The same runs with data of their own, in one piece. */
function copiesOf(runs: readonly PageRun[]): PageRun[] {
  const whole = Buffer.allocUnsafe(runs.reduce((sum, run) => sum + run.data.length, 0));
  let at = 0;
  return runs.map((run) => {
    whole.set(run.data, at);
    at += run.data.length;
    return { ...run, data: whole.subarray(at - run.data.length, at) };
  });
}
