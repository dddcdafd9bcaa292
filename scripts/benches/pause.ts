import { realClock, sleep } from "../../src/base/index.js";
import type { ChildOutcome } from "../../src/control/index.js";
import { Laboratory } from "./laboratory.js";
import { Rival } from "./rival.js";
import { copyByFile, snapshotByFile, type FileCopy } from "./rival-file.js";
import type { Durations } from "./sample.js";
import { metricOfBuckets, type Bucket, type Results } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

interface Size {
  name: string;
  mib: number;
  /** Whether the emulator's ways through a file are measured too, which take a minute at 4 GiB. */
  versus: boolean;
}

const SIZES: readonly Size[] = [
  { name: "256MiB", mib: 256, versus: true },
  { name: "1GiB", mib: 1024, versus: true },
  { name: "4GiB", mib: 4096, versus: false },
  { name: "8GiB", mib: 8192, versus: false },
];
/** What the guest's kernel keeps for itself, of all memory and besides. */
const WRITTEN_SHARE = 0.85;
const KERNEL_MIB = 64;
const US_PER_MS = 1000;
/** The emulator's ways take seconds each and differ by little. */
const VERSUS_RUNS = 3;
const PUSHING_RUNS = 3;
const PUSHING_SIZE = "1GiB";
const QUIET_MS = 1000;
const SLOW_MIB_PER_SECOND = 1;

/** Forks a guest that writes most of its memory as fast as it can, and ends each child as soon as it runs. */
export async function measurePause(bench: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    for (const size of SIZES) {
      const writtenMib = Math.floor(size.mib * WRITTEN_SHARE - KERNEL_MIB);
      await laboratory.boot(size.mib);
      await laboratory.guest.write(writtenMib);
      if (bench.versusQemu && size.versus) {
        await Rival.use(await laboratory.emulator(), async (rival) => {
          await rival.guest.write(writtenMib);
          await rival.stop();
          await measureSize(laboratory, bench, size, rival);
        });
      } else {
        await measureSize(laboratory, bench, size);
      }
      if (size.name === PUSHING_SIZE) await measurePushing(laboratory, bench, size.name);
      await laboratory.endParent();
    }
  });
}

async function measureSize(
  laboratory: Laboratory,
  bench: Bench,
  { name }: Size,
  rival?: Rival,
): Promise<void> {
  const { runs, results } = bench;
  const waits = new Waits(results);
  await laboratory.guest.writerLatency();
  await sleep(realClock, QUIET_MS);
  waits.add(`writer_wait_${name}_quiet`, await laboratory.guest.writerLatency());
  // The first fork compiles what the others run.
  for (let run = 0; run <= runs; run += 1) {
    await laboratory.guest.writerLatency();
    const outcome = await laboratory.fork({ sweep: "held" });
    const writer = await laboratory.guest.writerLatency();
    await laboratory.endChild();
    showProgress(`pause ${name}`, run, runs);
    if (run === 0) continue;
    addOutcome(results, name, outcome);
    waits.add(`writer_wait_${name}`, writer);
    if (rival !== undefined && run <= VERSUS_RUNS) await measureRival(laboratory, results, { name, rival });
  }
}

/** The two of the emulator's own ways to what a fork gives. The other guest, which writes as well, hardly does meanwhile. */
async function measureRival(
  laboratory: Laboratory,
  results: Results,
  { name, rival }: { name: string; rival: Rival },
): Promise<void> {
  await laboratory.guest.pace(SLOW_MIB_PER_SECOND);
  await rival.resume();
  for (const [mode, copy] of [
    ["snapshot", snapshotByFile],
    ["savecopyload", copyByFile],
  ] as const) {
    const { pauseMs, firstInstructionMs }: FileCopy = await copy(rival);
    results.add(`parent_pause_${name}_qemu_${mode}`, "ms", pauseMs);
    results.add(`first_instruction_${name}_qemu_${mode}`, "ms", firstInstructionMs);
  }
  await rival.stop();
  await laboratory.guest.pace(0);
}

/** What the parent's writer feels while everything it is about to write has to be sent first. */
async function measurePushing(laboratory: Laboratory, { results }: Bench, name: string): Promise<void> {
  const waits = new Waits(results);
  for (let run = 0; run <= PUSHING_RUNS; run += 1) {
    const { transfer } = await laboratory.fork({ sweep: "on" });
    await laboratory.guest.writerLatency();
    await laboratory.whenComplete(transfer);
    const writer = await laboratory.guest.writerLatency();
    await laboratory.endChild();
    showProgress(`pushing ${name}`, run, PUSHING_RUNS);
    if (run > 0) waits.add(`writer_wait_${name}_pushing`, writer);
  }
}

/** How long batches of 16 pages took a writer, over several runs. */
class Waits {
  readonly #results: Results;
  readonly #all = new Map<string, { buckets: Bucket[]; maxUs: number }>();

  constructor(results: Results) {
    this.#results = results;
  }

  add(name: string, { buckets, max_us: maxUs }: Durations): void {
    const all = this.#all.get(name) ?? { buckets: [], maxUs: 0 };
    this.#all.set(name, all);
    all.buckets.push(...buckets);
    all.maxUs = Math.max(all.maxUs, maxUs);
    this.#results.set(name, metricOfBuckets("µs", all.buckets, all.maxUs));
  }
}

function addOutcome(results: Results, size: string, outcome: ChildOutcome): void {
  const { pauseUs = NaN, firstInstructionUs = NaN, pauseParts = {} } = outcome;
  results.add(`parent_pause_${size}`, "ms", pauseUs / US_PER_MS);
  for (const [part, value] of Object.entries(pauseParts)) {
    const name = `parent_pause_${size}_${part.replace(/Us$/, "")}`;
    if (part.endsWith("Us")) results.add(name, "ms", value / US_PER_MS);
    else results.add(name, "pages", value);
  }
  results.add(`first_instruction_${size}`, "ms", firstInstructionUs / US_PER_MS);
}
