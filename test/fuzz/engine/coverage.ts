/** Counters of the instrumented sources: one byte for each block of code, counted up by the code itself. */

/** Most blocks that all instrumented sources of a process may have together. */
const MAX_BLOCKS = 1 << 16;

/** Outcomes are counted like blocks, behind them. More different ones than this are not told apart. */
const MAX_OUTCOMES = 512;

interface Module {
  path: string;
  first: number;
  blocks: number;
}

/** What a source's first line calls: see instrument.ts. */
type Register = (path: string, blocks: number, words: readonly string[]) => Uint8Array;

let installed: Coverage | undefined;

export class Coverage {
  readonly #counters = new Uint8Array(MAX_BLOCKS);
  readonly #wide = new Uint32Array(this.#counters.buffer);
  /** For each counter the ranges of counts that were seen, one bit each. */
  readonly #seen = new Uint8Array(MAX_BLOCKS + MAX_OUTCOMES);
  readonly #modules: Module[] = [];
  readonly #words = new Set<string>();
  readonly #outcomes = new Set<string>();
  #used = 0;

  /** Takes the counters of every instrumented source that is imported from here on. */
  static install(): void {
    const coverage = new Coverage();
    installed = coverage;
    const register: Register = (path, blocks, words) => coverage.#register(path, blocks, words);
    Object.assign(globalThis, { __rametFuzz: register });
  }

  /** That of this process; one that counts nothing when none was installed. */
  static get current(): Coverage {
    return (installed ??= new Coverage());
  }

  /** Names and texts that stand in the sources: what an input may need to contain to get further. */
  get words(): string[] {
    return [...this.#words].sort();
  }

  get outcomes(): number {
    return this.#outcomes.size;
  }

  /** To be called before every input. */
  reset(): void {
    this.#counters.fill(0, 0, this.#used);
  }

  /** How many features (blocks, how often they ran, outcomes) the input before was the first to have. */
  takeNew(outcome: string): number {
    let found = this.#noteOutcome(outcome);
    const words = Math.ceil(this.#used / 4);
    for (let word = 0; word < words; word += 1) {
      if (this.#wide[word] === 0) continue;
      for (let index = word * 4; index < word * 4 + 4; index += 1) {
        const bit = bucketOf(this.#counters[index] as number);
        const seen = this.#seen[index] as number;
        if ((seen | bit) === seen) continue;
        this.#seen[index] = seen | bit;
        found += 1;
      }
    }
    return found;
  }

  /** The features of the input before, to compare inputs by. */
  features(outcome: string): string[] {
    const features = [outcome];
    for (let index = 0; index < this.#used; index += 1) {
      const bit = bucketOf(this.#counters[index] as number);
      if (bit !== 0) features.push(`${index}:${bit}`);
    }
    return features;
  }

  /** Blocks of the named sources that ran at least once, of how many. */
  covered(paths: readonly string[]): { hit: number; total: number } {
    let hit = 0;
    let total = 0;
    for (const module of this.#modules) {
      const named = paths.some((path) =>
        path.endsWith("/") ? module.path.startsWith(path) : module.path === path,
      );
      if (!named) continue;
      total += module.blocks;
      for (let index = 0; index < module.blocks; index += 1) {
        if (this.#seen[module.first + index] !== 0) hit += 1;
      }
    }
    return { hit, total };
  }

  #register(path: string, blocks: number, words: readonly string[]): Uint8Array {
    const first = this.#used;
    if (first + blocks > MAX_BLOCKS) throw new Error(`more than ${MAX_BLOCKS} blocks are instrumented`);
    this.#used += blocks;
    this.#modules.push({ path, first, blocks });
    for (const word of words) this.#words.add(word);
    return this.#counters.subarray(first, first + blocks);
  }

  #noteOutcome(outcome: string): number {
    if (this.#outcomes.has(outcome) || this.#outcomes.size >= MAX_OUTCOMES) return 0;
    this.#outcomes.add(outcome);
    return 1;
  }
}

/** Counts of 1, 2, 3, 4 to 7, 8 to 15 … and 64 and more are each a feature of their own, as one bit. */
function bucketOf(count: number): number {
  if (count < 4) return count === 0 ? 0 : 1 << (count - 1);
  return 1 << Math.min(7, 32 - Math.clz32(count));
}
