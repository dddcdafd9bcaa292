import { Laboratory } from "./laboratory.js";
import { medianOf, type Metric } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

const GUEST_MIB = 1024;
const WRITTEN_MIB = 64;
/** So much more is swept while the child reads. */
const BALLAST_MIB = 600;

/** A child reads the parent's pages in random order: with the sweep held every page is a fault, with it running the rest is swept meanwhile. */
export async function measureFaults({ runs, results }: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    for (const { name, sweep, mib } of [
      { name: "fault_idle", sweep: "held", mib: WRITTEN_MIB },
      { name: "fault_under_sweep", sweep: "on", mib: BALLAST_MIB },
    ] as const) {
      await laboratory.boot(GUEST_MIB);
      await laboratory.write(mib);
      await laboratory.rest();
      const found: Metric[] = [];
      // The first fork compiles what the others run.
      for (let run = 0; run <= runs; run += 1) {
        const { transfer } = await laboratory.fork({ sweep, forwards: [laboratory.forward] });
        await laboratory.readAll();
        const { count, p50Us, p90Us, p99Us, maxUs } = await laboratory.faults(transfer);
        await laboratory.endChild();
        showProgress(name, run, runs);
        if (run > 0) found.push({ unit: "µs", p50: p50Us, p90: p90Us, p99: p99Us, max: maxUs, n: count });
      }
      results.set(name, medianOf(found));
      await laboratory.endParent();
    }
  });
}
