import { FRAME_HEADER_BYTES, PAGE_BYTES, SWEEP_RUN_PAGES } from "../base/index.js";

/** A run's descriptor, and what a frame of pages begins with (proto/page-protocol.md). */
const DESCRIPTOR_BYTES = 16;
const FIXED_BYTES = FRAME_HEADER_BYTES + 4;

/** Holds the answer to a fault. */
const SMALL_BYTES = 4352;
/** Holds a step of the sweep. */
const LARGE_BYTES = FIXED_BYTES + SWEEP_RUN_PAGES * (PAGE_BYTES + DESCRIPTOR_BYTES);
/** Buffers kept for the next frames; more of them are in use only while the network lags behind. */
const MOST_KEPT = 32;

/**
 * Buffers that frames of pages are encoded into and sent from, used again as soon as the network has them: a new one for each frame would bring on the garbage
 * collector, whose pauses stand before faults.
 */
export class FramePool {
  readonly #small: Buffer[] = [];
  readonly #large: Buffer[] = [];

  /** A buffer of at least so many bytes, with anything in it. To be given back; one that is not is lost to the pool and nothing else. */
  take(bytes: number): Buffer {
    if (bytes <= SMALL_BYTES) return this.#small.pop() ?? Buffer.allocUnsafeSlow(SMALL_BYTES);
    if (bytes <= LARGE_BYTES) return this.#large.pop() ?? Buffer.allocUnsafeSlow(LARGE_BYTES);
    return Buffer.allocUnsafeSlow(bytes);
  }

  /** Takes back a buffer that nobody reads any more. */
  giveBack(buffer: Buffer): void {
    const kept =
      buffer.length === SMALL_BYTES ? this.#small : buffer.length === LARGE_BYTES ? this.#large : undefined;
    if (kept !== undefined && kept.length < MOST_KEPT) kept.push(buffer);
  }
}
