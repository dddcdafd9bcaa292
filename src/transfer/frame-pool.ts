import {
  CALM_FRAME_PAGES,
  FRAME_HEADER_BYTES,
  MAX_RUN_PAGES,
  PAGE_BYTES,
  SWEEP_RUN_PAGES,
} from "../base/index.js";

/** A run's descriptor, and what a frame of pages begins with (proto/page-protocol.md). */
const DESCRIPTOR_BYTES = 16;
const FIXED_BYTES = FRAME_HEADER_BYTES + 4;

/** What buffers are made for: the answer to a fault, a step of the sweep while somebody waits for pages, what goes with an answer, and a step while nobody waits. */
const SIZES = [1, SWEEP_RUN_PAGES, MAX_RUN_PAGES, CALM_FRAME_PAGES].map(
  (pages) => FIXED_BYTES + pages * (PAGE_BYTES + DESCRIPTOR_BYTES),
);
/** Bytes of each size kept for the next frames; more of them are in use only while the network lags behind. */
const MOST_KEPT_BYTES = 2 * 1024 * 1024;

/**
 * Buffers that frames of pages are encoded into and sent from, used again as soon as the network has them: a new one for each frame would bring on the garbage
 * collector, whose pauses stand before faults.
 */
export class FramePool {
  readonly #free = SIZES.map(() => [] as Buffer[]);

  /** A buffer of at least so many bytes, with anything in it. To be given back; one that is not is lost to the pool and nothing else. */
  take(bytes: number): Buffer {
    const index = SIZES.findIndex((size) => bytes <= size);
    return this.#free[index]?.pop() ?? Buffer.allocUnsafeSlow(SIZES[index] ?? bytes);
  }

  /** Takes back a buffer that nobody reads any more. */
  giveBack(buffer: Buffer): void {
    const free = this.#free[SIZES.indexOf(buffer.length)];
    if (free !== undefined && (free.length + 1) * buffer.length <= MOST_KEPT_BYTES) free.push(buffer);
  }
}
