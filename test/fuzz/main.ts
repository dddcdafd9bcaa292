/** `scripts/fuzz`: fuzzes every target, one after the other, each in a process of its own, and prints a table. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { inputName } from "./engine/corpus.js";
import { SCRATCH_VARIABLE, scratchRoot } from "./engine/scratch-root.js";
import { TARGETS } from "./targets/index.js";
import type { Report, Task } from "./worker.js";

const USAGE = `Usage: scripts/fuzz [--seed N] [--inputs N] [--target T]... [--json] [--keep]

Gives generated inputs to every decoder and watches what they do. A decoder must answer with a value or with its room's coded error,
in time and within its bound of memory. Prints a table; what went wrong is written to build/fuzz. Exit code 1 when anything did.

  --seed N     the same seed and sources make the same inputs (default: 1)
  --inputs N   how many, over all targets (default: 100000)
  --target T   only this target; may be repeated. Without it all of:
               ${TARGETS.map(({ name }) => name).join(", ")}
  --json       a line of JSON for each target instead of the table
  --keep       replaces the inputs in test/fuzz/corpus by the best of this run
`;

const HERE = fileURLToPath(new URL(".", import.meta.url));
const FINDINGS = fileURLToPath(new URL("../../build/fuzz", import.meta.url));

/** A target that says nothing for this long has an input that never ends. It says something every second. */
const SILENCE_MS = 30_000;

/** A process that crashes is started again with what is left to do, as often as this. */
const MAX_CRASHES = 5;

/** Little, so that a decoder that keeps what it should not is found out. */
const HEAP_MIB = 512;

interface Summary extends Report {
  target: string;
  seed: number;
}

/** Runs a task to its end, crash or silence. */
function runOnce(task: Task): Promise<{ report: Report | undefined; failure: string | undefined }> {
  return new Promise((resolve) => {
    const nodeArgs = [`--max-old-space-size=${HEAP_MIB}`, "--max-semi-space-size=64", "--import", "tsx"];
    const instrumenting = ["--import", join(HERE, "engine", "register.ts")];
    const child = spawn(
      process.execPath,
      [...nodeArgs, ...instrumenting, join(HERE, "worker.ts"), JSON.stringify(task)],
      {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, [SCRATCH_VARIABLE]: dirname(task.currentPath) },
      },
    );
    let report: Report | undefined;
    let silent = false;
    let words = "";
    const onSilence = () => {
      silent = true;
      child.kill("SIGKILL");
    };
    let watchdog = setTimeout(onSilence, SILENCE_MS);
    createInterface({ input: child.stdout }).on("line", (line) => {
      clearTimeout(watchdog);
      watchdog = setTimeout(onSilence, SILENCE_MS);
      if (line.startsWith("{")) report = JSON.parse(line) as Report;
    });
    child.stderr.on("data", (chunk: Buffer) => (words = (words + chunk.toString()).slice(-600)));
    child.once("close", (code, signal) => {
      clearTimeout(watchdog);
      const how = silent ? `it said nothing for ${SILENCE_MS} ms` : (signal ?? `exit code ${code}`);
      resolve({ report, failure: report?.done === true ? undefined : `${how}\n${words}` });
    });
  });
}

/** The input that was being run, from the file the process wrote it to. */
function currentInput(path: string): Buffer {
  const bytes = readFileSync(path);
  return bytes.subarray(4, 4 + (bytes.length >= 4 ? bytes.readUInt32LE(0) : 0));
}

async function fuzz(
  target: string,
  options: { seed: number; inputs: number; keep: boolean },
): Promise<Summary> {
  const scratch = mkdtempSync(join(scratchRoot(), "ramet-fuzz."));
  const findingsDirectory = join(FINDINGS, target);
  const sum: Summary = {
    ...{ target, seed: options.seed, done: true, inputs: 0, corpus: 0, outcomes: 0, hit: 0, total: 0 },
    ...{ elapsedMs: 0, slowestMs: 0, largestBytes: 0, findings: [] },
  };
  try {
    for (let turn = 0; turn <= MAX_CRASHES; turn += 1) {
      const currentPath = join(scratch, "current");
      writeFileSync(currentPath, "");
      const inputs = options.inputs - sum.inputs;
      const seed = options.seed + turn * 1_000_003;
      const { report, failure } = await runOnce({
        ...{ target, seed, inputs, currentPath, findingsDirectory, keep: options.keep },
      });
      if (report !== undefined) add(sum, report);
      if (failure === undefined) return sum;
      const input = currentInput(currentPath);
      const path = join(findingsDirectory, inputName(input, "found-"));
      mkdirSync(findingsDirectory, { recursive: true });
      writeFileSync(path, input);
      sum.findings.push({ kind: "crash", message: failure, path });
      if (report === undefined || sum.inputs >= options.inputs) return sum;
    }
    return sum;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function add(sum: Summary, report: Report): void {
  const { hit, total, corpus, outcomes } = report;
  if (hit >= sum.hit) Object.assign(sum, { hit, total, corpus, outcomes });
  sum.inputs += report.inputs;
  sum.elapsedMs += report.elapsedMs;
  sum.slowestMs = Math.max(sum.slowestMs, report.slowestMs);
  sum.largestBytes = Math.max(sum.largestBytes, report.largestBytes);
  sum.findings.push(...report.findings);
}

function row(cells: readonly (string | number)[]): string {
  const widths = [-19, 10, 10, 12, 7, 9, 10, 12, 9];
  return cells
    .map((cell, index) => {
      const width = widths[index] ?? 0;
      return width < 0 ? String(cell).padEnd(-width) : String(cell).padStart(width);
    })
    .join("");
}

const HEAD = [
  "target",
  "inputs",
  "inputs/s",
  "blocks",
  "corpus",
  "outcomes",
  "slowest",
  "largest",
  "findings",
];

function describe(summary: Summary): string {
  const { target, inputs, elapsedMs, hit, total, corpus, outcomes, slowestMs, largestBytes, findings } =
    summary;
  const perSecond = elapsedMs === 0 ? 0 : Math.round((inputs * 1000) / elapsedMs);
  const blocks = total === 0 ? "native" : `${hit}/${total}`;
  const slowest = `${Math.ceil(slowestMs)} ms`;
  const largest = `${Math.ceil(largestBytes / 1024)} KiB`;
  return row([target, inputs, perSecond, blocks, corpus, outcomes, slowest, largest, findings.length]);
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      inputs: { type: "string", default: "100000" },
      target: { type: "string", multiple: true, default: [] },
      json: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const unknown = values.target.find((name) => !TARGETS.some((target) => target.name === name));
  if (unknown !== undefined) throw new Error(`there is no target ${unknown}; --help lists them`);
  const seed = Number(values.seed);
  const inputs = Number(values.inputs);
  if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(inputs) || inputs < 1)
    throw new Error("--seed and --inputs take whole numbers");
  return { ...values, seed, inputs };
}

async function main(): Promise<number> {
  const options = readArguments();
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const chosen = TARGETS.filter(({ name }) => options.target.length === 0 || options.target.includes(name));
  const shares = chosen.reduce((total, { share }) => total + share, 0);
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  if (!options.json) say(`seed ${options.seed}\n${row(HEAD)}`);
  let inputs = 0;
  let findings = 0;
  let elapsedMs = 0;
  for (const { name, share } of chosen) {
    const part = Math.ceil((options.inputs * share) / shares);
    const summary = await fuzz(name, { seed: options.seed, inputs: part, keep: options.keep });
    inputs += summary.inputs;
    findings += summary.findings.length;
    elapsedMs += summary.elapsedMs;
    say(options.json ? JSON.stringify(summary) : describe(summary));
    if (options.json) continue;
    for (const { kind, message, path } of summary.findings) say(`  ${kind}: ${message}\n    ${path}`);
  }
  if (!options.json) {
    const perSecond = Math.round((inputs * 1000) / Math.max(1, elapsedMs));
    say(`${inputs} inputs, ${perSecond} a second, ${findings} findings, seed ${options.seed}`);
  }
  return findings === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`fuzz: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
