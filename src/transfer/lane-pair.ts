import { FrameChannel } from "./channel.js";
import type {
  Channel,
  ChannelHandlers,
  FrameLane,
  LaneEnd,
  PageLane,
  SessionShare,
  ThreadLane,
} from "./ports.js";

/** How lanes end when the agent does while the transfer goes on. */
export const RESTARTS: LaneEnd = {
  code: "restarting",
  message: "the agent is being replaced; dial again",
  fatal: false,
};

/** How an urgent lane ends over which more comes than can be seen to. */
export const OVERRUN: LaneEnd = {
  code: "too-large",
  message: "more came at once than could be seen to; dial again",
  fatal: false,
};

/** The two page lanes of one epoch, which come and go together. */
export class LanePair {
  readonly epoch: number;
  readonly #transfer: number;
  readonly #pageCount: number;
  readonly #channels: Partial<Record<PageLane, Channel>> = {};

  constructor(options: { epoch: number; transfer: number; pageCount: number }) {
    this.epoch = options.epoch;
    this.#transfer = options.transfer;
    this.#pageCount = options.pageCount;
  }

  get urgent(): Channel | undefined {
    return this.#channels.urgent;
  }

  get bulk(): Channel | undefined {
    return this.#channels.bulk;
  }

  has(name: PageLane): boolean {
    return this.#channels[name] !== undefined;
  }

  /** True when both lanes are there. */
  get linked(): boolean {
    return this.has("urgent") && this.has("bulk");
  }

  /** @param share for a lane that another thread serves for a parent's session. */
  add(name: PageLane, lane: FrameLane | ThreadLane, handlers: ChannelHandlers, share?: SessionShare): void {
    const [transfer, pageCount] = [this.#transfer, this.#pageCount];
    const channel =
      "takeUp" in lane
        ? lane.takeUp({ transfer, pageCount, handlers, ...(share === undefined ? {} : { share }) })
        : new FrameChannel({ lane, transfer, pageCount, handlers });
    this.#channels[name] = channel;
    channel.attach();
  }

  /** Bytes of whole frames that travelled on a lane, both directions. */
  bytes(name: PageLane): number {
    return this.#channels[name]?.bytes ?? 0;
  }

  close(end: LaneEnd): void {
    this.#channels.urgent?.close(end);
    this.#channels.bulk?.close(end);
  }
}

/** The lanes of a transfer over all its epochs: the present pair, and the bytes of those before. */
export class Link {
  readonly #transfer: number;
  readonly #pageCount: number;
  readonly #pastBytes = { urgent: 0, bulk: 0 };
  readonly #firstEpoch: number;
  #pair: LanePair;

  /** @param options.epoch the last epoch of an earlier agent; 0 when there was none. */
  constructor(options: { transfer: number; pageCount: number; epoch?: number }) {
    this.#transfer = options.transfer;
    this.#pageCount = options.pageCount;
    this.#firstEpoch = options.epoch ?? 0;
    this.#pair = new LanePair({ ...options, epoch: this.#firstEpoch });
  }

  get pair(): LanePair {
    return this.#pair;
  }

  get epoch(): number {
    return this.#pair.epoch;
  }

  /** Closes the present lanes, if any, and starts a pair of the given epoch. */
  replace(epoch: number, end: LaneEnd): LanePair {
    for (const name of ["urgent", "bulk"] as const) this.#pastBytes[name] += this.#pair.bytes(name);
    this.#pair.close(end);
    this.#pair = new LanePair({ transfer: this.#transfer, pageCount: this.#pageCount, epoch });
    return this.#pair;
  }

  /** Closes the present lanes. What is still on its way to this pair finds it replaced. */
  drop(end: LaneEnd): void {
    this.replace(this.#pair.epoch, end);
  }

  bytes(name: PageLane): number {
    return this.#pastBytes[name] + this.#pair.bytes(name);
  }

  /** Times the lanes were dialled again. */
  get reconnects(): number {
    return Math.max(0, this.#pair.epoch - this.#firstEpoch - 1);
  }
}
