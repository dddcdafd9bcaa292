import type { Laboratory } from "./laboratory.js";
import { medianOf, type Metric } from "./statistics.js";

const GUEST_MIB = 1024;
const WRITTEN_MIB = 64;
/** So much more is swept while the child reads. */
const BALLAST_MIB = 600;

/** A child reads the parent's pages in random order: with the sweep held every page is a fault, with it running the rest is swept meanwhile. */
export async function measureFaults(laboratory: Laboratory, runs: number): Promise<Record<string, Metric>> {
  const metrics: Record<string, Metric> = {};
  for (const { name, sweep, mib } of [
    { name: "fault_idle", sweep: "held", mib: WRITTEN_MIB },
    { name: "fault_under_sweep", sweep: "on", mib: BALLAST_MIB },
  ] as const) {
    await laboratory.boot(GUEST_MIB);
    await laboratory.write(mib);
    await laboratory.rest();
    const results: Metric[] = [];
    for (let run = -1; run < runs; run += 1) {
      const { transfer } = await laboratory.fork({ sweep, forwards: [laboratory.forward] });
      await laboratory.readAll();
      const { count, p50Us, p90Us, p99Us, maxUs } = await laboratory.faults(transfer);
      await laboratory.endChild();
      process.stderr.write(`${name}: ${run + 1} of ${runs}\r`);
      if (run >= 0) results.push({ unit: "µs", p50: p50Us, p90: p90Us, p99: p99Us, max: maxUs, n: count });
    }
    process.stderr.write("\n");
    metrics[name] = medianOf(results);
    await laboratory.endParent();
  }
  return metrics;
}
