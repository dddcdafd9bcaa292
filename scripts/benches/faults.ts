import { realClock, sleep } from "../../src/base/index.js";
import type { Host } from "../../test/support/hosts.js";
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
/** Between two questions to an agent that is watched. */
const ASK_INTERVAL_MS = 20;

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
    const askers = [askOften(laboratory.parentHost), askOften(laboratory.childHost)];
    try {
      await measureService(laboratory, bench, {
        name: "fault_under_commands",
        sweep: "on",
        mib: BALLAST_MIB,
      });
    } finally {
      for (const stop of askers) await stop();
    }
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

/** Asks a host for all its guests and transfers as often as a dozen watching tools do, until the returned function is called. */
function askOften(host: Host): () => Promise<void> {
  let over = false;
  const asking = (async () => {
    while (!over) {
      await Promise.all([host.call("guest.list", {}), host.call("transfer.list", {})]);
      await sleep(realClock, ASK_INTERVAL_MS);
    }
  })();
  return async () => {
    over = true;
    await asking;
  };
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
