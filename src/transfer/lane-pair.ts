import { FrameChannel, type ChannelHandlers } from "./channel.js";
import type { FrameLane, LaneEnd, PageLane } from "./ports.js";

/** The two page lanes of one epoch, which come and go together. */
export class LanePair {
  readonly epoch: number;
  readonly #transfer: number;
  readonly #pageCount: number;
  readonly #channels: Partial<Record<PageLane, FrameChannel>> = {};

  constructor(options: { epoch: number; transfer: number; pageCount: number }) {
    this.epoch = options.epoch;
    this.#transfer = options.transfer;
    this.#pageCount = options.pageCount;
  }

  get urgent(): FrameChannel | undefined {
    return this.#channels.urgent;
  }

  get bulk(): FrameChannel | undefined {
    return this.#channels.bulk;
  }

  has(name: PageLane): boolean {
    return this.#channels[name] !== undefined;
  }

  /** True when both lanes are there. */
  get linked(): boolean {
    return this.has("urgent") && this.has("bulk");
  }

  add(name: PageLane, lane: FrameLane, handlers: ChannelHandlers): void {
    const [transfer, pageCount] = [this.#transfer, this.#pageCount];
    const channel = new FrameChannel({ lane, transfer, pageCount, handlers });
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
