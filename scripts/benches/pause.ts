import type { Laboratory } from "./laboratory.js";
import { metricOf, type Metric } from "./statistics.js";

const SIZES = [
  { name: "256MiB", mib: 256 },
  { name: "1GiB", mib: 1024 },
  { name: "4GiB", mib: 4096 },
] as const;
/** Leaves room for the guest's kernel. */
const WRITTEN_SHARE = 0.6;
const US_PER_MS = 1000;

/** Forks a guest that writes most of its memory as fast as it can, and ends each child as soon as it runs. */
export async function measurePause(laboratory: Laboratory, runs: number): Promise<Record<string, Metric>> {
  const metrics: Record<string, Metric> = {};
  const all: number[] = [];
  for (const { name, mib } of SIZES) {
    await laboratory.boot(mib);
    await laboratory.write(Math.floor(mib * WRITTEN_SHARE));
    const pauses: number[] = [];
    const firstInstruction: number[] = [];
    const parts = new Map<string, number[]>();
    // The first fork compiles what the others run.
    for (let run = -1; run < runs; run += 1) {
      const outcome = await laboratory.fork({ sweep: "held" });
      await laboratory.endChild();
      process.stderr.write(`pause ${name}: ${run + 1} of ${runs}\r`);
      if (run < 0) continue;
      pauses.push((outcome.pauseUs ?? NaN) / US_PER_MS);
      firstInstruction.push((outcome.firstInstructionUs ?? NaN) / US_PER_MS);
      for (const [part, value] of Object.entries(outcome.pauseParts ?? {})) {
        const isTime = part.endsWith("Us");
        const key = isTime ? part.slice(0, -2) : part;
        parts.set(key, [...(parts.get(key) ?? []), isTime ? value / US_PER_MS : value]);
      }
    }
    process.stderr.write("\n");
    all.push(...firstInstruction);
    metrics[`parent_pause_${name}`] = metricOf("ms", pauses);
    metrics[`first_instruction_${name}`] = metricOf("ms", firstInstruction);
    for (const [part, values] of parts) {
      metrics[`parent_pause_${name}_${part}`] = metricOf(part === "rearmedPages" ? "pages" : "ms", values);
    }
    await laboratory.endParent();
  }
  metrics["first_instruction"] = metricOf("ms", all);
  return metrics;
}
