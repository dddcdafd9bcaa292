import { Laboratory } from "./laboratory.js";
import { feel, Feelings } from "./stall.js";
import { medianOf, type Metric } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";
import { takeTurns } from "./turns.js";

const GUEST_MIB = 1024;
const WRITTEN_MIB = 64;
/** So much more is swept while the child reads. */
const BALLAST_MIB = 600;
const WINDOW_MS = 4000;

/**
 * What a missing page costs, as the child's agent sees it (`fault_…`) and as the guest itself does (`guest_stall`). For the former a
 * child reads all its pages in random order: with the sweep held every page is a fault, with it running the rest is swept meanwhile.
 * For the latter a guest touches pages at random while it is migrated, by Ramet or by the emulator alone.
 */
export async function measureFaults(bench: Bench): Promise<void> {
  const { runs, results, versusQemu } = bench;
  const feelings = new Feelings(results);
  await Laboratory.use(async (laboratory) => {
    await laboratory.boot(GUEST_MIB);
    await measureService(laboratory, bench, { name: "fault_idle", sweep: "held", mib: WRITTEN_MIB });
    await measureService(laboratory, bench, { name: "fault_under_sweep", sweep: "on", mib: BALLAST_MIB });
    await takeTurns({
      laboratory,
      versusQemu,
      rounds: runs,
      modes: ["postcopy", "preempt"],
      async prepare(guest) {
        await guest.write(BALLAST_MIB);
        await guest.rest();
      },
      async measure(mover, round) {
        const { touches } = await feel(mover, { mode: "read", windowMs: WINDOW_MS });
        showProgress(`guest_stall${mover.suffix}`, round, runs);
        if (round > 0) feelings.add("guest_stall", mover.suffix, touches);
      },
    });
    await laboratory.endParent();
  });
}

async function measureService(
  laboratory: Laboratory,
  { runs, results }: Bench,
  how: { name: string; sweep: "held" | "on"; mib: number },
): Promise<void> {
  const { name, sweep, mib } = how;
  await laboratory.guest.write(mib);
  await laboratory.guest.rest();
  const found: Metric[] = [];
  // The first fork compiles what the others run.
  for (let run = 0; run <= runs; run += 1) {
    const { transfer } = await laboratory.fork({
      sweep,
      workingSet: false,
      forwards: [laboratory.forward],
    });
    await laboratory.child.readAll();
    const metric = await laboratory.faults(transfer);
    await laboratory.endChild();
    showProgress(name, run, runs);
    if (run > 0) found.push(metric);
  }
  results.set(name, medianOf(found));
}
