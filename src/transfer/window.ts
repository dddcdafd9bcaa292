import { BULK_WINDOW_BYTES, CALM_FRAME_PAGES, PAGE_BYTES } from "../base/index.js";

/**
 * What bulk may add to the round trip of an empty link. While a child waits for pages now and then, a queue that drains in a millisecond hardly delays them; while
 * nobody does, a longer one costs nobody anything but the first, and keeps the link full when processors are busy and credit comes late.
 */
const TARGET_QUEUE_US = { calm: 10_000, urgent: 1000 };
/** At 2 Gbit/s the smaller drains in its target time; one smaller still would starve the sweep of a host whose processors are busy. */
const MIN_WINDOW_BYTES = { calm: 1024 * 1024, urgent: 256 * 1024 };
/** Nobody has asked for so long: nobody is expected to ask before the queue has drained. */
const CALM_AFTER_US = 50_000;
/** Credits come in bunches, so the rate is measured over so long at least, and what one measurement counts for in it. */
const RATE_SAMPLE_US = 2000;
const RATE_SHARE = 1 / 4;
const GROWTH_BYTES = 32 * 1024;
/** One frame may overshoot the limit, and must not overshoot the protocol's window. */
const MAX_LIMIT_BYTES = BULK_WINDOW_BYTES - 2 * CALM_FRAME_PAGES * PAGE_BYTES;

/**
 * How many bytes the bulk lane may have in flight. It follows the time from sending to credit: it grows by steps while credits return quickly and shrinks
 * by a quarter when they are late, so that what queues before link and child stays a millisecond long, whatever the rate and length of the link.
 */
export class AdaptiveWindow {
  readonly #maxBytes: number;
  #limitBytes: number;
  #inFlight: { bytes: number; sentAtUs: number }[] = [];
  #head = 0;
  #inFlightBytes = 0;
  #shrunkAtUs = 0;
  /** See `weigh`. */
  #weight = 1;
  #urgentAtUs = -Infinity;
  #bytesPerSecond = 0;
  #creditedAtUs = 0;
  /** Bytes credited since then, for the rate. */
  #sample = { bytes: 0, sinceUs: 0 };
  /** The shortest time from sending to credit so far: that of a link without a queue. */
  #emptyRoundTripUs = Number.MAX_SAFE_INTEGER;

  /** @param maxBytes the limit never grows beyond this. */
  constructor(maxBytes: number = MAX_LIMIT_BYTES) {
    this.#maxBytes = Math.min(maxBytes, MAX_LIMIT_BYTES);
    this.#limitBytes = Math.min(2 * MIN_WINDOW_BYTES.urgent, this.#maxBytes);
  }

  get limitBytes(): number {
    return this.#limitBytes;
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** What the link and the child take, smoothed over some milliseconds; less than that where there was not always something in flight. 0 before the first credit. */
  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /** True while another frame may be sent. One frame may overshoot the adaptive limit, never the protocol's window. */
  get open(): boolean {
    return this.#inFlightBytes < this.#limitBytes;
  }

  /**
   * Makes it give way to others of the same link, or the others to it: where windows grow and shrink together, and where each is as small as it may be, what
   * they carry is in proportion to their weights. 1 is usual.
   */
  weigh(weight: number): void {
    this.#weight = weight;
  }

  /** The child asks for a page: until nobody has for a while, what is in flight stays short. */
  urgent(nowUs: number): void {
    if (!this.isUrgent(nowUs)) this.#limitBytes = Math.min(this.#limitBytes, 2 * MIN_WINDOW_BYTES.urgent);
    this.#urgentAtUs = nowUs;
  }

  sent(bytes: number, nowUs: number): void {
    this.#inFlight.push({ bytes, sentAtUs: nowUs });
    this.#inFlightBytes += bytes;
  }

  /** Takes credit for bytes the child has consumed; false when it credits more than is in flight. */
  credited(bytes: number, nowUs: number): boolean {
    if (bytes > this.#inFlightBytes) return false;
    this.#inFlightBytes -= bytes;
    if (bytes > 0) this.#measure(bytes, nowUs);
    let left = bytes;
    while (left > 0) {
      const oldest = this.#inFlight[this.#head];
      if (oldest === undefined) break;
      if (oldest.bytes > left) {
        oldest.bytes -= left;
        break;
      }
      left -= oldest.bytes;
      this.#head += 1;
      this.#adapt(oldest.sentAtUs, nowUs);
    }
    if (this.#head > 256) {
      this.#inFlight = this.#inFlight.slice(this.#head);
      this.#head = 0;
    }
    return true;
  }

  /** Forgets what was in flight, when a connection is lost. */
  reset(): void {
    this.#inFlight = [];
    this.#head = 0;
    this.#inFlightBytes = 0;
    this.#bytesPerSecond = 0;
    this.#sample.bytes = 0;
  }

  /** True while the child has asked for a page not long ago. */
  isUrgent(nowUs: number): boolean {
    return nowUs - this.#urgentAtUs < CALM_AFTER_US;
  }

  #measure(bytes: number, nowUs: number): void {
    const sample = this.#sample;
    if (sample.bytes === 0)
      sample.sinceUs = Math.max(this.#creditedAtUs, this.#inFlight[this.#head]?.sentAtUs ?? nowUs);
    this.#creditedAtUs = nowUs;
    sample.bytes += bytes;
    const tookUs = nowUs - sample.sinceUs;
    if (tookUs < RATE_SAMPLE_US) return;
    this.#bytesPerSecond += ((sample.bytes / tookUs) * 1e6 - this.#bytesPerSecond) * RATE_SHARE;
    sample.bytes = 0;
  }

  #adapt(sentAtUs: number, nowUs: number): void {
    const state = this.isUrgent(nowUs) ? "urgent" : "calm";
    const roundTripUs = nowUs - sentAtUs;
    this.#emptyRoundTripUs = Math.min(this.#emptyRoundTripUs, roundTripUs);
    const leastBytes = Math.min(MIN_WINDOW_BYTES[state] * this.#weight, this.#maxBytes);
    if (roundTripUs - this.#emptyRoundTripUs <= TARGET_QUEUE_US[state]) {
      this.#limitBytes = Math.min(this.#limitBytes + GROWTH_BYTES * this.#weight, this.#maxBytes);
    } else if (sentAtUs >= this.#shrunkAtUs) {
      this.#limitBytes = Math.floor(this.#limitBytes * 0.75);
      this.#shrunkAtUs = nowUs;
    }
    this.#limitBytes = Math.max(this.#limitBytes, leastBytes);
  }
}
