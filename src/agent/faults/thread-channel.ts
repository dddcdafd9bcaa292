import { codeOf, messageOf } from "../../base/index.js";
import type { Channel, ChannelHandlers, Gate, LaneEnd } from "../../transfer/index.js";
import type { Frame } from "../../wire/index.js";
import type { Telling } from "./messages.js";

/** What the thread says of one lane. */
type LaneTelling = Extract<Telling, { is: "answered" | "frame" | "counted" | "ended" }>;

export interface ThreadChannelOptions {
  handlers: ChannelHandlers;
  /** Of a parent's session: what the thread tells of is noted there as seen to. */
  gate: Gate | undefined;
  attach(): void;
  send(frame: Frame): void;
  close(end: LaneEnd): void;
}

/** An urgent lane that the fault thread serves, for the machine it belongs to: what comes over it is what the thread has left over. */
export class ThreadChannel implements Channel {
  readonly #options: ThreadChannelOptions;
  #open = true;
  #bytes = 0;

  constructor(options: ThreadChannelOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get queuedBytes(): number {
    return 0;
  }

  attach(): void {
    this.#options.attach();
  }

  /** Has a frame sent; its size is counted when the thread tells of it. */
  send(frame: Frame): number {
    if (this.#open) this.#options.send(frame.kind === "pages" ? withOwnBytes(frame) : frame);
    return 0;
  }

  close(end: LaneEnd): void {
    if (!this.#open) return;
    this.#open = false;
    this.#options.close(end);
  }

  /** What the thread says of this lane. */
  told(telling: LaneTelling): void {
    if (telling.is !== "ended") this.#bytes = telling.bytes;
    this.#options.gate?.addUnseen(-askedFor(telling));
    if (!this.#open) return;
    const { handlers } = this.#options;
    switch (telling.is) {
      case "answered":
        return handlers.onAnswered?.(telling.answers);
      case "frame":
        return this.#onFrame(telling);
      case "ended":
        this.#open = false;
        return handlers.onEnd(telling.end);
      case "counted":
    }
  }

  #onFrame({ frame, frameBytes }: { frame: Frame; frameBytes: number }): void {
    try {
      this.#options.handlers.onFrame(frame, frameBytes);
    } catch (thrown) {
      // As in a channel of this thread's own.
      if (codeOf(thrown) === "internal") throw thrown;
      const end = { code: codeOf(thrown), message: messageOf(thrown), fatal: true };
      this.close(end);
      this.#options.handlers.onEnd(end);
    }
  }
}

/** Pages that were asked for, of which is told. */
function askedFor(telling: LaneTelling): number {
  if (telling.is === "answered") return telling.answers.pages.length;
  return telling.is === "frame" && telling.frame.kind === "request" ? telling.frame.pages.length : 0;
}

/** A message holds all of the memory that its parts are views of, and takes it as it is when it is sent. */
function withOwnBytes(frame: Extract<Frame, { kind: "pages" }>): Frame {
  return { ...frame, runs: frame.runs.map((run) => ({ ...run, data: Uint8Array.from(run.data) })) };
}
