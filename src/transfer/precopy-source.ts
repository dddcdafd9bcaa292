import {
  assert,
  Bitmap,
  deferred,
  PAGE_BYTES,
  MAX_RUN_PAGES,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import type { Frame, PageRun } from "../wire/index.js";
import { BulkFlow, type FlowChange, type FlowOptions } from "./bulk-flow.js";
import { FrameChannel } from "./channel.js";
import { TransferError } from "./errors.js";
import { packPages } from "./pack-pages.js";
import type { FrameLane, LaneEnd, PageRange, TrackedMemory } from "./ports.js";
import { SENT } from "./precopy-sink.js";

/** Holes told of in one frame. */
const MAX_HOLE_PAGES = 16_384;
/** Pages let through per step at the end, so that no fault waits behind all of a large memory. */
const RELEASE_SLICE_PAGES = 8192;
/** The most rounds over what was written meanwhile; after them the switch comes whatever is left. */
const MAX_ROUNDS = 8;
/** So few pages left are not worth another round. */
const FEW_PAGES = 256;
/** What can be sent in this time is not worth another round either. */
const SHORT_MS = 50;
/** A round that leaves more than this share of what it began with does not converge. */
const CONVERGING_SHARE = 0.8;

/** How a pre-copy stands; pages and bytes of this agent's making. */
export interface PrecopyProgress {
  /** 1 while all memory is sent for the first time. */
  round: number;
  total: number;
  /** Pages the child lacks as things stand. */
  due: number;
  /** Pages sent, those sent again counted each time. */
  sent: number;
  bytes: number;
  linked: boolean;
}

interface FrameInFlight {
  range: PageRange;
  bytes: number;
}

export interface PrecopySourceOptions extends FlowOptions {
  transfer: number;
  memory: TrackedMemory;
  clock: Clock;
  log: Log;
}

/**
 * Sends a running parent's memory to a child that does not run yet, page by page as it is at that moment, and again what the parent writes afterwards, for
 * a bounded number of rounds. Each page is either due, and may be written freely, or sent since it was last written, and protected.
 *
 * Invariant: a page that is not due and not in flight is in the child's memory as it is in the parent's.
 */
export class PrecopySource {
  readonly #options: PrecopySourceOptions;
  readonly #due: Bitmap;
  readonly #flow: BulkFlow;
  readonly #scratch = new Uint8Array(MAX_RUN_PAGES * PAGE_BYTES);
  readonly #ready = deferred<void>();
  #inFlight: FrameInFlight[] = [];
  #channel: FrameChannel | undefined;
  #epoch = 0;
  #cursor = 0;
  #round = 0;
  #roundBeganUs = 0;
  #roundSent = 0;
  #roundDue = 0;
  #sent = 0;
  #bytes = 0;
  #pump: Timer | undefined;
  #draining = false;
  #phase: "idle" | "running" | "finished" | "released" = "idle";

  constructor(options: PrecopySourceOptions) {
    this.#options = options;
    this.#due = new Bitmap(options.memory.pageCount);
    this.#due.fill();
    this.#flow = new BulkFlow(options.clock, options);
    // A failure is told to whoever runs it; nobody need do so.
    this.#ready.promise.catch(() => {});
  }

  progress(): PrecopyProgress {
    return {
      round: this.#round,
      total: this.#due.length,
      due: this.#due.count,
      sent: this.#sent,
      bytes: this.#bytes,
      linked: this.#channel !== undefined,
    };
  }

  /**
   * Takes the lane the child has dialled, in the place of any earlier one.
   * @throws TransferError `peer-protocol` when the lane is out of date, `cancelled` when there is nothing left to send.
   */
  acceptLane(epoch: number, lane: FrameLane, options = { lz4: true }): void {
    if (this.#phase === "finished" || this.#phase === "released") {
      throw new TransferError("cancelled", "memory is not copied ahead any more");
    }
    if (epoch <= this.#epoch) {
      throw new TransferError(
        "peer-protocol",
        `a lane of epoch ${epoch} comes after one of epoch ${this.#epoch}`,
      );
    }
    this.#drop({ code: "replaced", message: "the child dialled again", fatal: false });
    this.#epoch = epoch;
    if (!options.lz4) this.#flow.compression.forbid();
    const { transfer, memory } = this.#options;
    const channel: FrameChannel = new FrameChannel({
      lane,
      transfer,
      pageCount: memory.pageCount,
      handlers: {
        onFrame: (frame) => this.#onFrame(frame),
        onEnd: (end) => this.#onLaneEnd(channel, end),
      },
    });
    this.#channel = channel;
    channel.attach();
    this.#wake();
  }

  /**
   * Sends all memory and then what was written meanwhile. Resolves when little is left or it does not become less, and nothing is in flight; the guest should
   * be stopped at once then. Waits for as long as the child's host is out of reach.
   * @throws TransferError `cancelled` on abort, `child-failed` or `peer-protocol` when the child's side ended it.
   */
  async run(signal: AbortSignal): Promise<void> {
    assert(this.#phase === "idle", `memory is copied ahead once, not while ${this.#phase}`);
    this.#phase = "running";
    this.#options.memory.track((pages) => this.#onWriteFaults(pages));
    this.#beginRound();
    const onAbort = (): void =>
      this.#ready.reject(new TransferError("cancelled", "the migration was cancelled"));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      this.#wake();
      await this.#ready.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#pump?.cancel();
    }
  }

  /** As `ParentSession.setFlow`. */
  setFlow(change: FlowChange): void {
    this.#flow.change(change);
    this.#pump?.cancel();
    this.#pump = undefined;
    this.#wake();
  }

  /** The pages that the child lacks, of a parent that has been stopped for good. Nothing is sent afterwards. */
  finish(): Bitmap {
    assert(this.#phase === "running", `what was copied ahead is counted once, not while ${this.#phase}`);
    this.#phase = "finished";
    this.#drop(SENT);
    return this.#due;
  }

  /** Lets the parent's writers go and unregisters its memory, in one go. May be called at any time, twice too. */
  release(): void {
    if (this.#phase === "released") return;
    const tracked = this.#phase !== "idle";
    this.#end();
    if (tracked) this.#options.memory.release();
  }

  /** As `release`, in steps, for a parent that stays stopped while others' faults are served. */
  async releaseSlowly(): Promise<void> {
    if (this.#phase !== "finished") return this.release();
    this.#end();
    const { memory, clock } = this.#options;
    for (let first = 0; first < memory.pageCount; first += RELEASE_SLICE_PAGES) {
      memory.unprotect({ first, count: Math.min(RELEASE_SLICE_PAGES, memory.pageCount - first) });
      await new Promise<void>((resolve) => clock.soon(resolve));
    }
    memory.release();
  }

  /** Ends it before its time, because of the child's side. */
  fail(error: TransferError): void {
    this.#ready.reject(error);
  }

  #end(): void {
    this.#phase = "released";
    this.#pump?.cancel();
    this.#ready.reject(new TransferError("cancelled", "memory is not copied ahead any more"));
    this.#drop({ code: "cancelled", message: "memory is not copied ahead any more", fatal: true });
  }

  /** Closes the lane; what was in flight is due again. */
  #drop(end: LaneEnd): void {
    this.#channel?.close(end);
    this.#channel = undefined;
    for (const { range } of this.#inFlight) this.#due.setRun(range.first, range.count);
    this.#inFlight = [];
    this.#flow.reset();
  }

  #onLaneEnd(channel: FrameChannel, end: LaneEnd): void {
    if (channel !== this.#channel) return;
    this.#drop(end);
    if (end.fatal) {
      this.fail(new TransferError("child-failed", end.message));
      return;
    }
    const { log, transfer } = this.#options;
    log.warn({ transfer, end }, "the pre-copy's lane was lost; waiting for the child's host to dial again");
  }

  #onFrame(frame: Frame): void {
    if (frame.kind !== "received" || frame.runs.length > 0) {
      throw new TransferError("peer-protocol", `a frame of kind ${frame.kind} has no place in a pre-copy`);
    }
    if (!this.#flow.credited(frame.creditBytes)) {
      const message = `the child credits ${frame.creditBytes} bytes, more than are in flight`;
      throw new TransferError("peer-protocol", message);
    }
    let left = frame.creditBytes;
    while (left > 0) {
      const oldest = this.#inFlight[0];
      if (oldest === undefined || oldest.bytes > left) {
        throw new TransferError("peer-protocol", "the child credits a part of a frame");
      }
      left -= oldest.bytes;
      this.#inFlight.shift();
    }
    this.#wake();
  }

  /** A page that is about to be written is due again. One that is not protected is let through for whoever came late. */
  #onWriteFaults(pages: readonly number[]): void {
    for (const page of pages) {
      if (this.#phase !== "released") this.#due.set(page);
      this.#options.memory.unprotect({ first: page, count: 1 });
    }
    this.#wake();
  }

  #wake(): void {
    if (this.#pump !== undefined || this.#phase !== "running" || this.#channel === undefined) return;
    this.#pump = this.#options.clock.soon(() => this.#onPump());
  }

  #onPump(): void {
    this.#pump = undefined;
    try {
      this.#send();
    } catch (thrown) {
      const message = "the parent's memory cannot be read";
      this.fail(new TransferError("parent-failed", message, { cause: thrown }));
    }
  }

  #send(): void {
    for (let frames = this.#flow.takeTurn(); frames > 0; frames -= 1) {
      const channel = this.#channel;
      if (this.#phase !== "running" || channel === undefined) return;
      if (this.#draining) {
        if (this.#inFlight.length === 0) this.#ready.resolve();
        return;
      }
      if (!this.#flow.open) return;
      const waitMs = this.#flow.waitMs(channel.queuedBytes);
      if (waitMs > 0) {
        this.#pump = this.#options.clock.after(waitMs, () => this.#onPump());
        return;
      }
      const step = this.#nextRange();
      if (step === undefined) this.#endRound();
      else this.#sendRange(channel, step);
    }
    this.#wake();
  }

  #sendRange(channel: FrameChannel, step: { kind: "data" | "hole"; range: PageRange }): void {
    const { range } = step;
    const frame: Frame = { kind: "pages", runs: this.#runsOf(step) };
    const bytes = channel.send(frame);
    this.#inFlight.push({ range, bytes });
    this.#flow.sent(frame, bytes);
    this.#sent += range.count;
    this.#roundSent += bytes;
    this.#bytes += bytes;
  }

  /** The next pages of this round, protected and not due any more: whoever writes them from here on is noticed. */
  #nextRange(): { kind: "data" | "hole"; range: PageRange } | undefined {
    const { memory } = this.#options;
    const first = this.#due.nextSet(this.#cursor);
    if (first === -1) return undefined;
    const bound = Math.min(memory.pageCount, first + MAX_HOLE_PAGES);
    const clear = this.#due.nextClear(first, bound);
    const due = (clear === -1 ? bound : clear) - first;
    const hole = Math.min(due, this.#holeFrom(first));
    let range = { first, count: hole > 0 ? hole : Math.min(due, MAX_RUN_PAGES) };
    memory.protect(range);
    // Only what is a hole now, when nobody can fill it unnoticed, is told as one.
    const still = hole > 0 ? Math.min(hole, this.#holeFrom(first)) : 0;
    if (hole > 0) range = { first, count: still > 0 ? still : Math.min(hole, MAX_RUN_PAGES) };
    this.#due.clearRun(first, range.count);
    this.#cursor = first + range.count;
    return { kind: still > 0 ? "hole" : "data", range };
  }

  #holeFrom(page: number): number {
    const { memory } = this.#options;
    return (memory.nextData(page)?.first ?? memory.pageCount) - page;
  }

  #runsOf({ kind, range }: { kind: "data" | "hole"; range: PageRange }): PageRun[] {
    const { first: firstPage, count: pageCount } = range;
    if (kind === "hole") {
      return [{ firstPage, pageCount, encoding: "zero", origin: "sweep", data: new Uint8Array(0) }];
    }
    const bytes = this.#scratch.subarray(0, pageCount * PAGE_BYTES);
    this.#options.memory.read(range, bytes);
    return packPages({ firstPage, bytes, origin: "sweep", compress: this.#flow.compression.on });
  }

  #beginRound(): void {
    this.#round += 1;
    this.#cursor = 0;
    this.#roundDue = this.#due.count;
    this.#roundSent = 0;
    this.#roundBeganUs = this.#options.clock.nowUs();
  }

  #endRound(): void {
    const due = this.#due.count;
    const elapsedMs = Math.max(1, (this.#options.clock.nowUs() - this.#roundBeganUs) / 1000);
    const shortPages = ((this.#roundSent / elapsedMs) * SHORT_MS) / PAGE_BYTES;
    const few = due <= Math.max(FEW_PAGES, shortPages);
    const diverges = this.#round > 1 && due > this.#roundDue * CONVERGING_SHARE;
    const { log, transfer } = this.#options;
    log.info(
      { transfer, round: this.#round, due, elapsedMs: Math.round(elapsedMs) },
      "a round of the pre-copy is over",
    );
    if (few || diverges || this.#round >= MAX_ROUNDS) this.#draining = true;
    else this.#beginRound();
  }
}
