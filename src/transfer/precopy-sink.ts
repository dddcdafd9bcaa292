import { Bitmap, codeOf, messageOf, type Clock, type Log, type Timer } from "../base/index.js";
import { unpackRun, WireError, type Frame, type PageRun } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import { PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import type { ChildNotes, FrameLane, LaneEnd, PageRange, WritableMemory } from "./ports.js";

/** How the lane ends when the parent has nothing more to copy ahead. */
export const SENT: LaneEnd = { code: "complete", message: "all that is copied ahead was sent", fatal: true };
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5000;

export interface PrecopySinkOptions {
  transfer: number;
  memory: WritableMemory;
  dial: (epoch: number) => Promise<FrameLane>;
  clock: Clock;
  log: Log;
  notes: ChildNotes;
  /** Note the digest of each page given. */
  verify: boolean;
  /** Called at most once, when this host could not take a page or the parent's side ended it. */
  onFailed(error: TransferError): void;
}

/** Writes what is copied ahead into the memory of a child that does not run yet. The last content of a page counts, until `commit`. */
export class PrecopySink {
  readonly #options: PrecopySinkOptions;
  readonly #data: Bitmap;
  readonly #zeros: Bitmap;
  readonly #digests: PageDigests | undefined;
  #channel: FrameChannel | undefined;
  #epoch = 0;
  #retry: Timer | undefined;
  #retryMs = FIRST_RETRY_MS;
  #creditBytes = 0;
  #flush: Timer | undefined;
  #bytes = 0;
  #over = false;

  constructor(options: PrecopySinkOptions) {
    this.#options = options;
    const { pageCount } = options.memory;
    this.#data = new Bitmap(pageCount);
    this.#zeros = new Bitmap(pageCount);
    this.#digests = options.verify ? new PageDigests(pageCount) : undefined;
  }

  /** Pages that were given at least once, and bytes of frames. */
  progress(): { received: number; zero: number; bytes: number; linked: boolean } {
    return {
      received: this.#data.count + this.#zeros.count,
      zero: this.#zeros.count,
      bytes: this.#bytes,
      linked: this.#channel !== undefined,
    };
  }

  /** Dials the parent. */
  start(): void {
    this.#dial();
  }

  /**
   * Ends it: pages that the parent has changed since they were given are missing again, and pages known to be zero are noted. What arrives later is dropped.
   * @throws TransferError `peer-protocol` when a page that the child is said to have was never given.
   */
  commit(lacking: Bitmap): void {
    this.close();
    const known = new Bitmap(lacking.length);
    for (const { first, count } of lacking.runs()) {
      known.setRun(first, count);
      for (let page = first; page < first + count; page += 1) this.#zeros.clear(page);
      this.#options.memory.discard({ first, count });
    }
    for (const { first, count } of this.#data.runs()) known.setRun(first, count);
    for (const { first, count } of this.#zeros.runs()) known.setRun(first, count);
    const never = known.nextClear(0);
    if (never !== -1) {
      throw new TransferError(
        "peer-protocol",
        `the child is said to have page ${never}, which it was never given`,
      );
    }
    this.#options.notes.noteZero([...this.#zeros.runs()]);
  }

  /** Takes nothing any more. May be called twice. */
  close(): void {
    this.#over = true;
    this.#drop({ code: "complete", message: "nothing more is copied ahead", fatal: true });
  }

  #dial(): void {
    const epoch = (this.#epoch += 1);
    this.#options.dial(epoch).then(
      (lane) => {
        if (this.#over)
          return lane.close({ code: "replaced", message: "this dial was given up", fatal: false });
        this.#attach(lane);
      },
      (thrown: unknown) => {
        const fatal = thrown instanceof Error && "fatal" in thrown && thrown.fatal === true;
        this.#onLaneEnd({ code: codeOf(thrown), message: messageOf(thrown), fatal });
      },
    );
  }

  #attach(lane: FrameLane): void {
    const { transfer, memory } = this.#options;
    const channel: FrameChannel = new FrameChannel({
      lane,
      transfer,
      pageCount: memory.pageCount,
      handlers: {
        onFrame: (frame, frameBytes) => this.#onFrame(frame, frameBytes),
        onEnd: (end) => channel === this.#channel && this.#onLaneEnd(end),
      },
    });
    this.#channel = channel;
    this.#retryMs = FIRST_RETRY_MS;
    channel.attach();
  }

  #onLaneEnd(end: LaneEnd): void {
    if (this.#over) return;
    this.#drop(end);
    // All was sent: what is lacking is told with the device state.
    if (end.code === SENT.code) return;
    if (end.fatal) return this.#fail(new TransferError("parent-failed", end.message));
    const { log, clock, transfer } = this.#options;
    log.warn({ transfer, end, retryMs: this.#retryMs }, "the pre-copy's lane was lost; dialling again");
    this.#retry = clock.after(this.#retryMs, () => this.#dial());
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  #onFrame(frame: Frame, frameBytes: number): void {
    if (frame.kind !== "pages") {
      throw new TransferError("peer-protocol", `a frame of kind ${frame.kind} has no place in a pre-copy`);
    }
    try {
      for (const run of frame.runs) this.#take(run);
    } catch (thrown) {
      if (thrown instanceof WireError || codeOf(thrown) === "internal") throw thrown;
      const message = `pages could not be written: ${messageOf(thrown)}`;
      return this.#fail(new TransferError("child-failed", message, { cause: thrown }));
    }
    this.#bytes += frameBytes;
    this.#creditBytes += frameBytes;
    this.#flush ??= this.#options.clock.soon(() => this.#credit());
  }

  #credit(): void {
    this.#flush = undefined;
    this.#channel?.send({ kind: "received", creditBytes: this.#creditBytes, runs: [] });
    this.#creditBytes = 0;
  }

  #take(run: PageRun): void {
    const { firstPage: first, pageCount: count } = run;
    if (run.encoding === "zero") return this.#takeZeros({ first, count });
    const bytes = unpackRun(run);
    this.#options.memory.write(first, bytes);
    for (let page = first; page < first + count; page += 1) this.#zeros.clear(page);
    this.#data.setRun(first, count);
    if (this.#digests === undefined) return;
    this.#digests.setContent(first, bytes);
    this.#options.notes.noteDigests(first, this.#digests.slice(first, count));
  }

  #takeZeros(range: PageRange): void {
    const { first, count } = range;
    let held = false;
    for (let page = first; page < first + count; page += 1) held = this.#data.clear(page) || held;
    if (held) this.#options.memory.discard(range);
    this.#zeros.setRun(first, count);
    if (this.#digests === undefined) return;
    for (let page = first; page < first + count; page += 1) this.#digests.setZero(page);
    this.#options.notes.noteDigests(first, this.#digests.slice(first, count));
  }

  #fail(error: TransferError): void {
    if (this.#over) return;
    this.#over = true;
    this.#drop({ code: error.code, message: error.message, fatal: true });
    this.#options.onFailed(error);
  }

  #drop(end: LaneEnd): void {
    this.#channel?.close(end);
    this.#channel = undefined;
    this.#creditBytes = 0;
    this.#flush?.cancel();
    this.#flush = undefined;
    this.#retry?.cancel();
  }
}
