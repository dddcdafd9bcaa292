import { Laboratory } from "./laboratory.js";
import { showProgress, type Bench } from "./suite.js";
import { takeTurns } from "./turns.js";

const GUEST_MIB = 1024;
/** Content that does not compress, for compression is a choice and not the sweep. */
const POPULATED_MIB = 768;
const MIB_PER_GIB = 1024;

/** Moves a guest that does nothing: all its memory goes over, and nobody waits for any of it. */
export async function measureSweep({ runs, results, versusQemu }: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    await laboratory.boot(GUEST_MIB);
    await takeTurns({
      laboratory,
      versusQemu,
      rounds: runs,
      async prepare(guest) {
        await guest.write(POPULATED_MIB);
        await guest.rest();
      },
      async measure({ suffix, move }, round) {
        const { totalMs, cpuSeconds } = await move();
        showProgress(`sweep${suffix}`, round, runs);
        if (round === 0) return;
        results.add(`sweep_rate${suffix}`, "MiB/s", POPULATED_MIB / (totalMs / 1000));
        results.add(`sweep_cpu${suffix}`, "s/GiB", cpuSeconds / (POPULATED_MIB / MIB_PER_GIB));
      },
    });
    await laboratory.endParent();
  });
}
