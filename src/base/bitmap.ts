import { assert } from "./assert.js";

/** A run of set (or clear) bits: `first` and how many. */
export interface BitRun {
  first: number;
  count: number;
}

/** A word with every bit set. */
const ALL = -1;

/** A fixed number of bits, counted as they change, with searches that skip 32 bits at a time. */
export class Bitmap {
  readonly length: number;
  /** Signed, so that a word is never too large for what the engine keeps without allocating. */
  readonly #words: Int32Array;
  #count = 0;

  /**
   * @param length how many bits; all start clear.
   * @param options.shared other threads may look at it (`SharedBits`); only the thread that made it changes it.
   */
  constructor(length: number, options: { shared: boolean } = { shared: false }) {
    assert(Number.isSafeInteger(length) && length >= 0, `a bitmap's length is a whole number, not ${length}`);
    this.length = length;
    const words = Math.ceil(length / 32);
    this.#words = options.shared ? new Int32Array(new SharedArrayBuffer(words * 4)) : new Int32Array(words);
  }

  /** What another thread looks at it through; only of a bitmap that was made to be shared. */
  get sharedBuffer(): SharedArrayBuffer {
    const { buffer } = this.#words;
    assert(buffer instanceof SharedArrayBuffer, "a bitmap is shared that was made for it");
    return buffer;
  }

  /** Of a shared one: what was changed before is seen by other threads before anything that this one does later. */
  publish(): void {
    if (this.#words.length > 0) Atomics.add(this.#words, 0, 0);
  }

  /** How many bits are set. */
  get count(): number {
    return this.#count;
  }

  has(index: number): boolean {
    return ((this.#words[index >>> 5] as number) & (1 << (index & 31))) !== 0;
  }

  /** Sets a bit and says whether that changed it. */
  set(index: number): boolean {
    assert(index >= 0 && index < this.length, `bit ${index} lies outside a bitmap of ${this.length}`);
    const word = this.#words[index >>> 5] as number;
    const mask = 1 << (index & 31);
    if ((word & mask) !== 0) return false;
    this.#words[index >>> 5] = word | mask;
    this.#count += 1;
    return true;
  }

  /** Clears a bit and says whether that changed it. */
  clear(index: number): boolean {
    assert(index >= 0 && index < this.length, `bit ${index} lies outside a bitmap of ${this.length}`);
    const word = this.#words[index >>> 5] as number;
    const mask = 1 << (index & 31);
    if ((word & mask) === 0) return false;
    this.#words[index >>> 5] = word & ~mask;
    this.#count -= 1;
    return true;
  }

  /** Sets every bit of a run and returns how many of them were clear. */
  setRun(first: number, count: number): number {
    let changed = 0;
    for (let index = first; index < first + count;) {
      if ((index & 31) === 0 && index + 32 <= first + count && this.#words[index >>> 5] === 0) {
        assert(index + 32 <= this.length, `bit ${index + 31} lies outside a bitmap of ${this.length}`);
        this.#words[index >>> 5] = ALL;
        this.#count += 32;
        changed += 32;
        index += 32;
      } else {
        if (this.set(index)) changed += 1;
        index += 1;
      }
    }
    return changed;
  }

  /** Clears every bit of a run and returns how many of them were set. */
  clearRun(first: number, count: number): number {
    let changed = 0;
    for (let index = first; index < first + count;) {
      if ((index & 31) === 0 && index + 32 <= first + count && this.#words[index >>> 5] === ALL) {
        this.#words[index >>> 5] = 0;
        this.#count -= 32;
        changed += 32;
        index += 32;
      } else {
        if (this.clear(index)) changed += 1;
        index += 1;
      }
    }
    return changed;
  }

  /** Clears every bit. */
  reset(): void {
    this.#words.fill(0);
    this.#count = 0;
    this.publish();
  }

  /** Sets every bit. */
  fill(): void {
    this.setRun(0, this.length);
  }

  /** The first set bit at or after `from`, or -1. */
  nextSet(from: number): number {
    return this.#next(from, 0);
  }

  /** The first bit at or after `from` that is set here and clear in `other`, which is as long; -1 when there is none. */
  nextSetOutside(other: Bitmap, from: number): number {
    assert(other.length === this.length, "bitmaps that are compared are of one length");
    if (from >= this.length) return -1;
    const outside = (index: number) => (this.#words[index] as number) & ~(other.#words[index] as number);
    let wordIndex = from >>> 5;
    let word = outside(wordIndex) & (ALL << (from & 31));
    while (word === 0) {
      wordIndex += 1;
      if (wordIndex >= this.#words.length) return -1;
      word = outside(wordIndex);
    }
    return wordIndex * 32 + (31 - Math.clz32(word & -word));
  }

  /** The first clear bit at or after `from`, or -1. */
  nextClear(from: number): number {
    return this.#next(from, ALL);
  }

  /** The bits from `first` on (a multiple of 8) as bytes, bit 0 of a byte first; the last byte is filled up with clear bits. */
  bytes(first: number, count: number): Uint8Array {
    assert(
      first % 8 === 0 && first + count <= this.length,
      `bits ${first}+${count} are not bytes of ${this.length} bits`,
    );
    const bytes = new Uint8Array(Math.ceil(count / 8));
    for (
      let index = this.nextSet(first);
      index !== -1 && index < first + count;
      index = this.nextSet(index + 1)
    ) {
      bytes[(index - first) >>> 3] = (bytes[(index - first) >>> 3] as number) | (1 << (index & 7));
    }
    return bytes;
  }

  /** Sets the bits that are set in `bytes`, as `bytes` made them; those past the end are left out. */
  setBytes(first: number, bytes: Uint8Array): void {
    for (const [at, byte] of bytes.entries()) {
      if (byte === 0) continue;
      for (let bit = 0; bit < 8; bit += 1) {
        const index = first + at * 8 + bit;
        if ((byte & (1 << bit)) !== 0 && index < this.length) this.set(index);
      }
    }
  }

  /** Every run of set bits, in order. */
  *runs(): Generator<BitRun> {
    for (let first = this.nextSet(0); first !== -1;) {
      const end = this.nextClear(first);
      const past = end === -1 ? this.length : end;
      yield { first, count: past - first };
      first = past >= this.length ? -1 : this.nextSet(past);
    }
  }

  #next(from: number, flip: number): number {
    if (from >= this.length) return -1;
    let wordIndex = from >>> 5;
    let word = ((this.#words[wordIndex] as number) ^ flip) & (ALL << (from & 31));
    while (word === 0) {
      wordIndex += 1;
      if (wordIndex >= this.#words.length) return -1;
      word = (this.#words[wordIndex] as number) ^ flip;
    }
    const index = wordIndex * 32 + (31 - Math.clz32(word & -word));
    return index < this.length ? index : -1;
  }
}
