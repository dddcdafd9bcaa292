import { Bitmap } from "../base/index.js";
import type { BlockSource } from "./block-source.js";
import { BLOCK_BYTES, MAP_BYTES, SWEEP_READ_BLOCKS, SWEEP_READS } from "./filling-limits.js";

export interface FillingSweepOptions {
  /** Blocks that have come, by whatever way, as they come. */
  here: Bitmap;
  source: BlockSource;
  sizeBytes: number;
  keep(firstBlock: number, bytes: Buffer): Promise<void>;
  keepHole(firstBlock: number, count: number): Promise<void>;
}

/** Brings what nobody waits for: where there is content, a window of reads; where there is none, nothing but that. */
export class FillingSweep {
  readonly #options: FillingSweepOptions;
  /** Blocks somebody has to bring: neither here nor asked for by this sweep. */
  readonly #wanted: Bitmap;
  /** Blocks of which it is known that there is content. */
  readonly #mapped: Bitmap;
  readonly #underWay = new Set<Promise<void>>();
  #from = 0;
  #stopped = false;
  #problem: { error: unknown } | undefined;

  constructor(options: FillingSweepOptions) {
    this.#options = options;
    const { here } = options;
    this.#wanted = new Bitmap(here.length);
    for (let block = here.nextClear(0); block !== -1; block = here.nextClear(block + 1))
      this.#wanted.set(block);
    this.#mapped = new Bitmap(here.length);
  }

  /** Goes on from a block: whoever read before it reads it next, more often than not. */
  steer(block: number): void {
    this.#from = block;
  }

  /** Resolves when nothing is wanted any more, or it was stopped. Rejects with what the source or the file has refused. */
  async run(): Promise<void> {
    while (!this.#isOver) {
      const block = this.#next();
      if (block === undefined) {
        if (this.#underWay.size === 0) break;
        await Promise.race(this.#underWay);
      } else if (!this.#mapped.has(block))
        await this.#map(block).catch((error: unknown) => this.#fail(error));
      else {
        this.#begin(block);
        if (this.#underWay.size >= SWEEP_READS) await Promise.race(this.#underWay);
      }
    }
    await Promise.all(this.#underWay);
    if (this.#problem !== undefined && !this.#stopped) throw this.#problem.error;
  }

  /** Begins nothing any more, and resolves when what was begun has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#underWay);
  }

  get #isOver(): boolean {
    return this.#stopped || this.#problem !== undefined;
  }

  #next(): number | undefined {
    const { here } = this.#options;
    for (let pass = 0; pass < 2; pass += 1) {
      const block = this.#wanted.nextSetOutside(here, this.#from);
      if (block !== -1) return block;
      this.#from = 0;
    }
    return undefined;
  }

  /** Finds out where there is content from a block on; what is told to be empty is here with that. */
  async #map(block: number): Promise<void> {
    const { source, sizeBytes, keepHole } = this.#options;
    const offset = block * BLOCK_BYTES;
    let at = offset;
    for (const { lengthBytes, hole } of await source.extents(
      offset,
      Math.min(MAP_BYTES, sizeBytes - offset),
    )) {
      const end = at + lengthBytes;
      const first = Math.ceil(at / BLOCK_BYTES);
      const past = end === sizeBytes ? this.#mapped.length : Math.floor(end / BLOCK_BYTES);
      // A block that is partly empty has content.
      if (hole && past > first) await keepHole(first, past - first);
      at = end;
    }
    const past = Math.max(block + 1, Math.floor(at / BLOCK_BYTES));
    this.#mapped.setRun(block, (at === sizeBytes ? this.#mapped.length : past) - block);
  }

  #begin(first: number): void {
    const { here } = this.#options;
    let count = 0;
    while (count < SWEEP_READ_BLOCKS && this.#isFetchable(first + count, here)) {
      this.#wanted.clear(first + count);
      count += 1;
    }
    this.#from = first + count;
    const task: Promise<void> = this.#bring(first, count).finally(() => this.#underWay.delete(task));
    this.#underWay.add(task);
  }

  #isFetchable(block: number, here: Bitmap): boolean {
    return block < here.length && this.#wanted.has(block) && this.#mapped.has(block) && !here.has(block);
  }

  /** Never rejects. */
  async #bring(first: number, count: number): Promise<void> {
    const { source, sizeBytes, keep } = this.#options;
    const offset = first * BLOCK_BYTES;
    try {
      await keep(first, await source.read(offset, Math.min(count * BLOCK_BYTES, sizeBytes - offset)));
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#problem ??= { error };
  }
}
