import type { Bitmap } from "../base/index.js";
import { BLOCK_BYTES } from "./filling-limits.js";

/** Blocks that were brought for whoever waits for them. */
export interface Fetched {
  firstBlock: number;
  bytes: Buffer;
}

/** Whether a block is among what was brought. */
export function coversBlock({ firstBlock, bytes }: Fetched, block: number): boolean {
  return block >= firstBlock && block < firstBlock + Math.ceil(bytes.length / BLOCK_BYTES);
}

/** What somebody waits for of a disk under way: each block is asked for once, however many wait for it. */
export class FillingFetches {
  readonly #options: {
    here: Bitmap;
    bring: (firstBlock: number, count: number) => Promise<Buffer>;
    keep: (firstBlock: number, bytes: Buffer) => Promise<void>;
  };
  readonly #underWay = new Map<number, Promise<Fetched>>();

  /**
   * @param options.here blocks that have come.
   * @param options.bring asks whoever has them for blocks.
   * @param options.keep takes what was brought.
   */
  constructor(options: {
    here: Bitmap;
    bring: (firstBlock: number, count: number) => Promise<Buffer>;
    keep: (firstBlock: number, bytes: Buffer) => Promise<void>;
  }) {
    this.#options = options;
  }

  /** Blocks of a range that have not come. */
  missing(first: number, last: number): number[] {
    const { here } = this.#options;
    const missing: number[] = [];
    for (let block = here.nextClear(first); block !== -1 && block <= last;) {
      missing.push(block);
      block = here.nextClear(block + 1);
    }
    return missing;
  }

  /** Brings what is missing of a range. Rejects with what `bring` or `keep` does. */
  async bring(first: number, last: number): Promise<Fetched[]> {
    const missing = this.missing(first, last);
    return missing.length === 0 ? [] : Promise.all(this.#fetch(missing));
  }

  /** Resolves when nothing is under way, however it ended. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay.values());
  }

  /** One read for each run of blocks that nobody has asked for by now. */
  #fetch(missing: readonly number[]): Promise<Fetched>[] {
    const fetches = new Set<Promise<Fetched>>();
    for (let index = 0; index < missing.length;) {
      const first = missing[index] as number;
      const asked = this.#underWay.get(first);
      let count = 1;
      if (asked !== undefined) fetches.add(asked);
      else {
        while (missing[index + count] === first + count && !this.#underWay.has(first + count)) count += 1;
        const fetch = this.#fetchRun(first, count);
        for (let block = first; block < first + count; block += 1) this.#underWay.set(block, fetch);
        fetches.add(fetch);
      }
      index += count;
    }
    return [...fetches];
  }

  async #fetchRun(firstBlock: number, count: number): Promise<Fetched> {
    try {
      const bytes = await this.#options.bring(firstBlock, count);
      await this.#options.keep(firstBlock, bytes);
      return { firstBlock, bytes };
    } finally {
      for (let block = firstBlock; block < firstBlock + count; block += 1) this.#underWay.delete(block);
    }
  }
}
