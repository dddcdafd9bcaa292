import { readdirSync } from "node:fs";
import { getHeapStatistics } from "node:v8";
import { performance } from "node:perf_hooks";
import { SeededRandom } from "../../../src/base/index.js";
import type { Coverage } from "./coverage.js";
import { mutateBytes, mutateText, type MutationSources } from "./mutate-bytes.js";
import { JSON_NOTATION, MSGPACK_NOTATION, mutateValues, treeTurn } from "./mutate-values.js";
import type { Target } from "./target.js";

/** Longest that one input may keep the process busy. Inputs are small: this is thousands of times what they take. */
export const MAX_INPUT_MS = 1000;

/** Inputs that are slow or greedy once may have met a collection or another process; only what repeats is a finding. */
const REPEATS = 3;

/** Most inputs kept for mutation. */
const MAX_CORPUS = 4096;

/** What a decoder did that it must not do. */
export interface Finding {
  kind: "exception" | "slow" | "allocation" | "leak";
  message: string;
  /** Findings with one signature are one. */
  signature: string;
  input: Buffer;
}

/** How one input went. */
export interface Execution {
  outcome: string;
  elapsedMs: number;
  allocatedBytes: number;
  finding?: Finding;
}

/** How many descriptors this process has open. */
export function countDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** Runs one input once and judges it, but for what only repeats can show. */
async function executeOnce(target: Target, input: Buffer): Promise<Execution> {
  const before = getHeapStatistics();
  const started = performance.now();
  let outcome = "exception";
  let finding: Finding | undefined;
  try {
    const result = target.run(input);
    outcome = typeof result === "string" ? result : await result;
  } catch (error) {
    finding = { kind: "exception", ...describe(error), input };
  }
  const elapsedMs = performance.now() - started;
  const after = getHeapStatistics();
  const allocatedBytes =
    after.used_heap_size + after.external_memory - before.used_heap_size - before.external_memory;
  return { outcome, elapsedMs, allocatedBytes, ...(finding === undefined ? {} : { finding }) };
}

/** Runs one input and judges it. */
export async function execute(target: Target, input: Buffer): Promise<Execution> {
  const bound = target.allocationBytes(input.length);
  let best = await executeOnce(target, input);
  for (let turn = 1; turn < REPEATS && best.finding === undefined; turn += 1) {
    if (best.elapsedMs <= MAX_INPUT_MS && best.allocatedBytes <= bound) return best;
    const again = await executeOnce(target, input);
    best = {
      ...again,
      elapsedMs: Math.min(again.elapsedMs, best.elapsedMs),
      allocatedBytes: Math.min(again.allocatedBytes, best.allocatedBytes),
    };
  }
  if (best.finding !== undefined) return best;
  if (best.elapsedMs > MAX_INPUT_MS) {
    best.finding = {
      kind: "slow",
      message: `took ${Math.round(best.elapsedMs)} ms`,
      signature: "slow",
      input,
    };
  } else if (best.allocatedBytes > bound) {
    const message = `allocated ${best.allocatedBytes} bytes for ${input.length}; at most ${bound} are allowed`;
    best.finding = { kind: "allocation", message, signature: "allocation", input };
  }
  return best;
}

function describe(error: unknown): { message: string; signature: string } {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`;
  const frame = error instanceof Error ? /\n\s+at (.*)/.exec(error.stack ?? "")?.[1] : undefined;
  const where = frame === undefined ? "" : ` at ${frame.replace(/\(?file:\/\/.*\/|\(\/.*\//, "")}`;
  return {
    message: message.slice(0, 500) + where,
    signature: message.replace(/[0-9]+|"[^"]*"/g, "*").slice(0, 60),
  };
}

/** Makes inputs for one target, and keeps those that reach something new. Which ones depends on seed and code only. */
export class Fuzzer {
  readonly target: Target;
  readonly corpus: Buffer[] = [];
  readonly #coverage: Coverage;
  readonly #sources: MutationSources;

  constructor(target: Target, options: { seed: number; coverage: Coverage }) {
    this.target = target;
    this.#coverage = options.coverage;
    const random = new SeededRandom(options.seed);
    this.#sources = { random, words: options.coverage.words, other: () => this.#pick() };
  }

  /** Runs an input that was given, and keeps it when it reaches something new. */
  async offer(input: Buffer): Promise<Execution> {
    this.#coverage.reset();
    const execution = await execute(this.target, input);
    if (this.#coverage.takeNew(execution.outcome) > 0 && this.corpus.length < MAX_CORPUS) {
      this.corpus.push(Buffer.from(input));
    }
    return execution;
  }

  /** A new input. */
  next(): Buffer {
    const input = this.#mutate(this.#pick());
    const { repair, maxInputBytes } = this.target;
    const { random } = this.#sources;
    const mended = repair !== undefined && random.chance(0.8) ? repair(input, random) : input;
    return mended.length > maxInputBytes ? mended.subarray(0, maxInputBytes) : mended;
  }

  #mutate(input: Buffer): Buffer {
    const sources = this.#sources;
    const { format } = this.target;
    if (format === "text" && sources.random.chance(0.8)) return mutateText(input, sources);
    if ((format === "json" || format === "msgpack") && treeTurn(sources.random)) {
      const notation = format === "json" ? JSON_NOTATION : MSGPACK_NOTATION;
      const mutated = mutateValues(input, sources, notation);
      if (mutated !== undefined) return mutated;
    }
    return mutateBytes(input, sources);
  }

  /** An input of the corpus, a late one more often: it leads to what is not yet well explored. */
  #pick(): Buffer {
    const { random } = this.#sources;
    const share = Math.max(random.next(), random.next());
    return this.corpus[Math.floor(share * this.corpus.length)] ?? Buffer.alloc(0);
  }
}
