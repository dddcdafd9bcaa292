import { assert, AssertionError } from "./assert.js";

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
    const changed = this.#changeRun(first, count, true);
    this.#count += changed;
    return changed;
  }

  /** Clears every bit of a run and returns how many of them were set. */
  clearRun(first: number, count: number): number {
    const changed = this.#changeRun(first, count, false);
    this.#count -= changed;
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

  /** The first set bit at or after `from` and before `past`, or -1. With a bound, it looks no further in a large memory than it has to. */
  nextSet(from: number, past = this.length): number {
    return this.#next(from, past, 0);
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

  /** The first clear bit at or after `from` and before `past`, or -1. */
  nextClear(from: number, past = this.length): number {
    return this.#next(from, past, ALL);
  }

  /** The bits from `first` on (a multiple of 8) as bytes, bit 0 of a byte first; the last byte is filled up with clear bits. */
  bytes(first: number, count: number): Uint8Array {
    assert(
      first % 8 === 0 && first + count <= this.length,
      `bits ${first}+${count} are not bytes of ${this.length} bits`,
    );
    const bytes = new Uint8Array(Math.ceil(count / 8));
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = (first >>> 3) + at;
      bytes[at] = (this.#words[byte >>> 2] as number) >>> ((byte & 3) * 8);
    }
    const last = bytes.length - 1;
    if ((count & 7) !== 0) bytes[last] = (bytes[last] as number) & (0xff >>> (8 - (count & 7)));
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

  #next(from: number, past: number, flip: number): number {
    if (from >= past) return -1;
    const lastIndex = (past - 1) >>> 5;
    let wordIndex = from >>> 5;
    let word = ((this.#words[wordIndex] as number) ^ flip) & (ALL << (from & 31));
    while (word === 0) {
      wordIndex += 1;
      if (wordIndex > lastIndex) return -1;
      word = (this.#words[wordIndex] as number) ^ flip;
    }
    const index = wordIndex * 32 + (31 - Math.clz32(word & -word));
    return index < past ? index : -1;
  }

  /** Word by word, each of them written once; returns how many bits were changed. */
  #changeRun(first: number, count: number, on: boolean): number {
    const past = first + count;
    if (count > 0 && (first < 0 || past > this.length))
      throw new AssertionError(`bits ${first} to ${past - 1} lie outside a bitmap of ${this.length}`);
    let changed = 0;
    for (let index = first; index < past;) {
      const wordIndex = index >>> 5;
      const end = Math.min(past, (wordIndex + 1) * 32);
      const word = this.#words[wordIndex] as number;
      const run = (ALL << (index & 31)) & (ALL >>> (31 - ((end - 1) & 31)));
      const change = on ? run & ~word : run & word;
      if (change !== 0) this.#words[wordIndex] = word ^ change;
      changed += bitsIn(change);
      index = end;
    }
    return changed;
  }
}

/** How many bits of a word are set. */
function bitsIn(word: number): number {
  if (word === 0) return 0;
  if (word === ALL) return 32;
  const pairs = (word - ((word >>> 1) & 0x55555555)) | 0;
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
