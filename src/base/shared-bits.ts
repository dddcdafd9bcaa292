/**
 * Bits that several threads see. One of them changes them, here or as the `Bitmap` they belong to; the others only look. What a thread did before it
 * changed a bit has happened for whoever sees the bit changed.
 */
export class SharedBits {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  /** @param buffer that of a `Bitmap`, or of other `SharedBits`. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** Bits of its own, all clear. */
  static make(length: number): SharedBits {
    return new SharedBits(new SharedArrayBuffer(Math.ceil(length / 32) * 4));
  }

  has(index: number): boolean {
    return (Atomics.load(this.#words, index >>> 5) & (1 << (index & 31))) !== 0;
  }

  set(index: number): void {
    Atomics.or(this.#words, index >>> 5, 1 << (index & 31));
  }

  clear(index: number): void {
    Atomics.and(this.#words, index >>> 5, ~(1 << (index & 31)));
  }
}
