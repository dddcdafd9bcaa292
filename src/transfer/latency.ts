/** Durations counted in buckets that are 1/16 of a power of two wide: about 6 % exact, no allocation per sample, fixed size. */
export class LatencyHistogram {
  readonly #buckets = new Uint32Array(32 * 16);
  #count = 0;
  #maxUs = 0;

  get count(): number {
    return this.#count;
  }

  get maxUs(): number {
    return this.#maxUs;
  }

  /** Counts a duration in whole microseconds. */
  add(durationUs: number): void {
    const value = Math.max(0, Math.floor(durationUs));
    const bucket = bucketOf(value);
    this.#buckets[bucket] = (this.#buckets[bucket] as number) + 1;
    this.#count += 1;
    this.#maxUs = Math.max(this.#maxUs, value);
  }

  /** How many samples there are, and their percentiles in microseconds. */
  summary(): { count: number; p50Us: number; p90Us: number; p99Us: number; p999Us: number; maxUs: number } {
    const [p50Us = 0, p90Us = 0, p99Us = 0, p999Us = 0] = [0.5, 0.9, 0.99, 0.999].map((share) =>
      this.percentileUs(share),
    );
    return { count: this.#count, p50Us, p90Us, p99Us, p999Us, maxUs: this.#maxUs };
  }

  /** The duration below which the given share (0 to 1) of the samples lies, in microseconds; 0 when there are none. */
  percentileUs(share: number): number {
    const wanted = Math.ceil(this.#count * share);
    let seen = 0;
    for (let bucket = 0; bucket < this.#buckets.length; bucket += 1) {
      seen += this.#buckets[bucket] as number;
      if (seen >= wanted && seen > 0) return Math.min(upperOf(bucket), this.#maxUs);
    }
    return 0;
  }
}

function bucketOf(value: number): number {
  if (value < 16) return value;
  const exponent = 31 - Math.clz32(value);
  return Math.min((exponent - 3) * 16 + ((value >>> (exponent - 4)) & 15), 32 * 16 - 1);
}

function upperOf(bucket: number): number {
  if (bucket < 16) return bucket;
  const exponent = Math.floor(bucket / 16) + 3;
  return (16 + (bucket % 16) + 1) * 2 ** (exponent - 4) - 1;
}
