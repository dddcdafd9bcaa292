/** Fuzzes one target in a process of its own, which may crash or hang. Started by main.ts; speaks JSON lines on standard output. */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { inputName, keepSmallest, keptInputs } from "./engine/corpus.js";
import { Coverage } from "./engine/coverage.js";
import { countDescriptors, Fuzzer, type Finding } from "./engine/fuzzer.js";
import type { Target } from "./engine/target.js";
import { loadTarget } from "./targets/index.js";

/** What main.ts asks for, as JSON in the first argument. */
export interface Task {
  target: string;
  seed: number;
  inputs: number;
  /** Where the input is written before it is run, so that it can be found after a crash. */
  currentPath: string;
  findingsDirectory: string;
  /** Whether to replace the kept inputs by the best of this run. */
  keep: boolean;
}

/** What it has come to. `done` in the last line. */
export interface Report {
  done: boolean;
  inputs: number;
  corpus: number;
  outcomes: number;
  hit: number;
  total: number;
  /** Milliseconds since the first input, and the most one input took and allocated. */
  elapsedMs: number;
  slowestMs: number;
  largestBytes: number;
  findings: { kind: string; message: string; path: string }[];
}

const REPORT_MS = 1000;
/** Descriptors may come and go; this many more than at the start do not go. */
const DESCRIPTOR_SLACK = 16;
/** Between two looks at the clock. */
const BATCH = 32;
/** Findings beyond this many tell nothing new. */
const MAX_FINDINGS = 20;

class Worker {
  readonly #task: Task;
  readonly #target: Target;
  readonly #coverage: Coverage;
  readonly #fuzzer: Fuzzer;
  readonly #current: number;
  readonly #findings = new Map<string, Report["findings"][number]>();
  readonly #startedMs = performance.now();
  #inputs = 0;
  #descriptors: number | undefined;
  #slowestMs = 0;
  #largestBytes = 0;

  constructor(task: Task, target: Target, coverage: Coverage) {
    this.#task = task;
    this.#target = target;
    this.#coverage = coverage;
    this.#fuzzer = new Fuzzer(target, { seed: task.seed, coverage });
    this.#current = openSync(task.currentPath, "w");
  }

  async run(): Promise<void> {
    for (const { input } of keptInputs(this.#target)) await this.#offer(input);
    for (const seed of this.#target.seeds()) await this.#offer(Buffer.from(seed));
    let reportedMs = performance.now();
    while (this.#inputs < this.#task.inputs) {
      for (let turn = 0; turn < BATCH; turn += 1) await this.#offer(this.#fuzzer.next());
      if (performance.now() - reportedMs < REPORT_MS) continue;
      reportedMs = performance.now();
      this.#checkDescriptors();
      this.#report(false);
      // Whatever decoders left for later has its turn, so that it does not pile up.
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#checkDescriptors();
    closeSync(this.#current);
    if (this.#task.keep) await keepSmallest(this.#target, this.#coverage, this.#fuzzer.corpus);
    this.#report(true);
  }

  async #offer(input: Buffer): Promise<void> {
    this.#note(input);
    const { finding, elapsedMs, allocatedBytes } = await this.#fuzzer.offer(input);
    this.#inputs += 1;
    this.#slowestMs = Math.max(this.#slowestMs, elapsedMs);
    this.#largestBytes = Math.max(this.#largestBytes, allocatedBytes);
    if (finding !== undefined) this.#keepFinding(finding);
  }

  /** u32 length, then the input. */
  #note(input: Buffer): void {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(input.length);
    writeSync(this.#current, head, 0, 4, 0);
    if (input.length > 0) writeSync(this.#current, input, 0, input.length, 4);
  }

  /** Whatever a decoder opens, somebody has to close. */
  #checkDescriptors(): void {
    const open = countDescriptors();
    this.#descriptors ??= open;
    if (open <= this.#descriptors + DESCRIPTOR_SLACK) return;
    const message = `${open} descriptors are open, ${this.#descriptors} were a second after the start`;
    this.#keepFinding({ kind: "leak", message, signature: "leak", input: Buffer.alloc(0) });
  }

  #keepFinding({ kind, message, signature, input }: Finding): void {
    if (this.#findings.has(signature) || this.#findings.size >= MAX_FINDINGS) return;
    const path = join(this.#task.findingsDirectory, inputName(input, "found-"));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, input);
    this.#findings.set(signature, { kind, message, path });
  }

  #report(done: boolean): void {
    const report: Report = {
      done,
      inputs: this.#inputs,
      corpus: this.#fuzzer.corpus.length,
      outcomes: this.#coverage.outcomes,
      ...this.#coverage.covered(this.#target.covers),
      elapsedMs: performance.now() - this.#startedMs,
      slowestMs: this.#slowestMs,
      largestBytes: this.#largestBytes,
      findings: [...this.#findings.values()],
    };
    writeSync(1, `${JSON.stringify(report)}\n`);
  }
}

const task = JSON.parse(process.argv[2] ?? "") as Task;
await new Worker(task, await loadTarget(task.target), Coverage.current).run();
process.exit(0);
