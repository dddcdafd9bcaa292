import { codeOf, messageOf, type Clock, type Log, type Timer } from "../base/index.js";
import type { Frame } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import { TransferError } from "./errors.js";
import type { FrameLane, LaneEnd } from "./ports.js";

/** Pauses before a lost lane is dialled again; after the last of them the parent is asked to send everything itself. */
const RETRIES_MS = [100, 200, 400];

export interface RelayFeedOptions {
  /** The transfer of the child that is passed on to. */
  transfer: number;
  pageCount: number;
  /** Dials the relay. Rejects as `DialLane` does. */
  dial: (epoch: number) => Promise<FrameLane>;
  /** Takes a frame of pages; throws a WireError when it is wrong. */
  take(frame: Extract<Frame, { kind: "pages" }>): void;
  /** While it says so, credit is withheld. */
  isFull(): boolean;
  /** The lane is there for the first time, or nothing comes any more. */
  onLinked(): void;
  onOver(): void;
  clock: Clock;
  log: Log;
}

/** The lane on which another child of the same instant passes on what it is given. Whatever goes wrong with it ends it, and nothing else. */
export class RelayFeed {
  readonly #options: RelayFeedOptions;
  #channel: FrameChannel | undefined;
  #epoch = 0;
  #attempts = 0;
  #retry: Timer | undefined;
  #flush: Timer | undefined;
  #creditBytes = 0;
  #over = false;

  constructor(options: RelayFeedOptions) {
    this.#options = options;
    this.#dial();
  }

  /** Gives the credit that was withheld, once there is room. */
  onRoom(): void {
    if (this.#creditBytes > 0) this.#creditSoon();
  }

  /** Takes nothing any more. May be called twice. */
  close(end: LaneEnd): void {
    this.#over = true;
    this.#retry?.cancel();
    this.#flush?.cancel();
    this.#channel?.close(end);
    this.#channel = undefined;
  }

  #dial(): void {
    this.#options.dial((this.#epoch += 1)).then(
      (lane) => {
        if (this.#over)
          return lane.close({ code: "complete", message: "nothing more is needed", fatal: true });
        this.#attach(lane);
      },
      (thrown: unknown) => {
        const fatal = thrown instanceof Error && "fatal" in thrown && thrown.fatal === true;
        this.#onLaneEnd({ code: codeOf(thrown), message: messageOf(thrown), fatal });
      },
    );
  }

  #attach(lane: FrameLane): void {
    const { transfer, pageCount } = this.#options;
    this.#creditBytes = 0;
    const channel: FrameChannel = new FrameChannel({
      lane,
      transfer,
      pageCount,
      handlers: {
        onFrame: (frame, frameBytes) => channel === this.#channel && this.#onFrame(frame, frameBytes),
        onEnd: (end) => channel === this.#channel && this.#onLaneEnd(end),
      },
    });
    this.#channel = channel;
    this.#options.onLinked();
    channel.attach();
  }

  #onFrame(frame: Frame, frameBytes: number): void {
    if (frame.kind === "done")
      return this.#end({ code: "complete", message: "all there was to pass on has come", fatal: true });
    if (frame.kind !== "pages")
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on a relay's lane`,
      );
    this.#attempts = 0;
    this.#creditBytes += frameBytes;
    this.#options.take(frame);
    this.#creditSoon();
  }

  #creditSoon(): void {
    if (this.#over || this.#options.isFull()) return;
    this.#flush ??= this.#options.clock.soon(() => {
      this.#flush = undefined;
      if (this.#creditBytes === 0 || this.#options.isFull()) return;
      this.#channel?.send({ kind: "received", creditBytes: this.#creditBytes, runs: [] });
      this.#creditBytes = 0;
    });
  }

  #onLaneEnd(end: LaneEnd): void {
    if (this.#over) return;
    this.#channel = undefined;
    const pauseMs = RETRIES_MS[this.#attempts];
    if (end.fatal || pauseMs === undefined) return this.#end(end);
    this.#attempts += 1;
    this.#retry = this.#options.clock.after(pauseMs, () => this.#dial());
  }

  #end(end: LaneEnd): void {
    if (this.#over) return;
    const { log, transfer } = this.#options;
    log.info({ transfer, end }, "nothing is passed on to this child any more");
    this.close(end);
    this.#options.onOver();
  }
}
