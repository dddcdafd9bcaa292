import { CALM_FRAME_PAGES, MAX_RUN_PAGES, PAGE_BYTES, SWEEP_RUN_PAGES, type Clock } from "../base/index.js";
import type { Frame } from "../wire/index.js";
import {
  AdaptiveCompression,
  contentBytesOf,
  type CompressionChoice,
  type CompressionOptions,
} from "./compression.js";
import { AdaptiveWindow } from "./window.js";

/** What a transfer is worth beside the others of its host. */
export type TransferPriority = "high" | "normal" | "low";

/**
 * Frames of one turn, before the event loop may look at faults, at requests and at other transfers, and the weight of the window. The first decides where
 * transfers share a processor, the second where they share a link. With four frames a turn, faults took a quarter longer at the median than with one.
 */
const SHARES: { readonly [Priority in TransferPriority]: { framesPerTurn: number; weight: number } } = {
  high: { framesPerTurn: 2, weight: 2 },
  normal: { framesPerTurn: 1, weight: 1 },
  low: { framesPerTurn: 0.25, weight: 0.25 },
};

/** So many frames fit in the window at least, while somebody waits for pages. */
const FRAMES_IN_FLIGHT = 4;

/** Bytes the network stack may lag behind before bulk pauses for a moment. */
const MAX_QUEUED_BYTES = 1024 * 1024;

/** What goes with an answer, so that fewer pages are waited for, takes the link so long at the most: a fault that comes behind it waits for that. */
const AROUND_US = 1000;

/** What goes with answers may be so far ahead of the rate limit; the sweep then waits for it. */
const MOST_AHEAD_US = 10_000;

/** How fast bulk may go, as an operator chooses it at the start and may change it meanwhile. */
export interface FlowOptions {
  /** Bytes of bulk frames per second; undefined for no limit. */
  rateBytesPerSecond?: number | undefined;
  priority?: TransferPriority | undefined;
  /** Whether pages are sent as lz4 where that saves something. */
  compress: boolean | CompressionOptions;
  /** Most bytes in flight; the adaptive window stays below it. */
  maxWindowBytes?: number | undefined;
}

/** What an operator changes while it runs: what is not named stays, and a rate of undefined is no limit. */
export interface FlowChange extends Pick<FlowOptions, "rateBytesPerSecond" | "priority"> {
  compression?: CompressionChoice;
}

/** When the next frame of bulk may be sent, and how: the window, the rate limit, the transfer's share of its host, and compression. */
export class BulkFlow {
  readonly compression: AdaptiveCompression;
  readonly #clock: Clock;
  readonly #window: AdaptiveWindow;
  #rateBytesPerSecond: number | undefined;
  #priority: TransferPriority = "normal";
  /** What a turn's share of frames has left over for the next. */
  #turns = 0;
  /** Until then nothing is sent. */
  #quietUntilUs = 0;
  /** When the rate limit lets the next frame go. */
  #paceFromUs = 0;
  /** When this turn began, or its latest frame was sent: the clock is read once for each. */
  #nowUs = 0;
  /** The child has asked for a page since. */
  #asked = false;

  constructor(clock: Clock, options: FlowOptions) {
    this.#clock = clock;
    this.#window = new AdaptiveWindow(options.maxWindowBytes);
    const { compress } = options;
    this.compression = new AdaptiveCompression(
      typeof compress === "boolean" ? { choice: compress ? "lz4" : "none", first: compress } : compress,
    );
    this.change(options);
  }

  /** A new limit holds at once: what was sent under the old one is waited for at the new rate. */
  change(change: FlowChange): void {
    if (change.priority !== undefined) {
      this.#priority = change.priority;
      this.#window.weigh(SHARES[change.priority].weight);
    }
    if (change.compression !== undefined) this.compression.choose(change.compression);
    if (!("rateBytesPerSecond" in change)) return;
    const rate = change.rateBytesPerSecond;
    const before = this.#rateBytesPerSecond;
    const nowUs = this.#clock.nowUs();
    const owedUs = Math.max(0, this.#paceFromUs - nowUs);
    this.#paceFromUs = nowUs + (rate === undefined || before === undefined ? 0 : (owedUs * before) / rate);
    this.#rateBytesPerSecond = rate;
  }

  /** Sends nothing for so long from now on; 0 ends that. */
  quiet(forMs: number): void {
    this.#quietUntilUs = forMs === 0 ? 0 : this.#clock.nowUs() + forMs * 1000;
  }

  /** Begins a turn: how many frames may be sent before others have theirs; none in some turns of a low priority. */
  takeTurn(): number {
    this.#readClock();
    this.#turns += SHARES[this.#priority].framesPerTurn;
    const frames = Math.floor(this.#turns);
    this.#turns -= frames;
    return frames;
  }

  /** True while the window lets another frame go. */
  get open(): boolean {
    return this.#window.open;
  }

  /** Milliseconds until the next frame may go, with so many bytes waiting in the network stack; 0 for at once. */
  waitMs(queuedBytes: number): number {
    const fromUs = Math.max(
      this.#quietUntilUs,
      this.#rateBytesPerSecond === undefined ? 0 : this.#paceFromUs,
    );
    const waitUs = fromUs === 0 ? 0 : fromUs - this.#clock.nowUs();
    if (waitUs <= 0 && queuedBytes <= MAX_QUEUED_BYTES) return 0;
    return Math.max(1, Math.ceil(waitUs / 1000));
  }

  /** A frame of so many bytes on the wire was sent; it was made since the turn began, or since the frame before it. */
  sent(frame: Frame, bytes: number): void {
    const beganUs = this.#nowUs;
    const nowUs = this.#readClock();
    this.#window.sent(bytes, nowUs);
    this.compression.sent(
      { wireBytes: bytes, contentBytes: contentBytesOf(frame), tookUs: nowUs - beganUs },
      nowUs,
    );
    const rate = this.#rateBytesPerSecond;
    if (rate !== undefined) this.#paceFromUs = Math.max(this.#paceFromUs, nowUs) + (bytes / rate) * 1e6;
  }

  /** The child has asked, and was answered elsewhere. With that went so many bytes of bulk, for which there is no window; the rate limit counts them. */
  answered(bytes: number): void {
    this.urgent();
    const rate = this.#rateBytesPerSecond;
    if (rate === undefined) return;
    this.#paceFromUs = Math.max(this.#paceFromUs, this.#clock.nowUs()) + (bytes / rate) * 1e6;
  }

  /**
   * How many pages, a power of two, may go with the answer to a fault: as many as the link carries in a moment; 0 where that is not even two, and while more
   * was sent than the rate limit lets go in the next moment.
   */
  get aroundPages(): number {
    if (this.#paceFromUs > this.#nowUs + MOST_AHEAD_US) return 0;
    const rate = Math.min(this.#window.bytesPerSecond, this.#rateBytesPerSecond ?? Infinity);
    const pages = (rate * AROUND_US) / 1e6 / PAGE_BYTES;
    return pages < 2 ? 0 : Math.min(MAX_RUN_PAGES, 2 ** Math.floor(Math.log2(pages)));
  }

  /** Takes credit for bytes the child has consumed; false when it credits more than is in flight. */
  credited(bytes: number): boolean {
    const nowUs = this.#readClock();
    if (!this.#window.credited(bytes, nowUs)) return false;
    this.compression.credited(bytes, nowUs);
    return true;
  }

  /** The child asks for a page. */
  urgent(): void {
    this.#asked = true;
  }

  /**
   * Most pages of one frame of the sweep: with many, each costs less; while somebody waits for pages, a frame is a share of what may be in flight, so that
   * a slow link is not taken by one for long.
   */
  get sweepPages(): number {
    if (!this.#asked && !this.#window.isUrgent(this.#nowUs)) return CALM_FRAME_PAGES;
    const share = Math.floor(this.#window.limitBytes / FRAMES_IN_FLIGHT / PAGE_BYTES);
    return Math.max(SWEEP_RUN_PAGES, Math.min(CALM_FRAME_PAGES, share));
  }

  /** The connection is lost, with all that was in flight. */
  reset(): void {
    this.#window.reset();
    this.compression.reset();
  }

  #readClock(): number {
    this.#nowUs = this.#clock.nowUs();
    if (this.#asked) this.#window.urgent(this.#nowUs);
    this.#asked = false;
    return this.#nowUs;
  }
}
