import type { ChildOutcome } from "../../src/control/index.js";
import { Laboratory } from "./laboratory.js";
import type { Results } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

const SIZES = [
  { name: "256MiB", mib: 256 },
  { name: "1GiB", mib: 1024 },
  { name: "4GiB", mib: 4096 },
] as const;
/** Leaves room for the guest's kernel. */
const WRITTEN_SHARE = 0.6;
const US_PER_MS = 1000;

/** Forks a guest that writes most of its memory as fast as it can, and ends each child as soon as it runs. */
export async function measurePause({ runs, results }: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    for (const { name, mib } of SIZES) {
      await laboratory.boot(mib);
      await laboratory.guest.write(Math.floor(mib * WRITTEN_SHARE));
      // The first fork compiles what the others run.
      for (let run = 0; run <= runs; run += 1) {
        const outcome = await laboratory.fork({ sweep: "held" });
        await laboratory.endChild();
        showProgress(`pause ${name}`, run, runs);
        if (run > 0) addOutcome(results, name, outcome);
      }
      await laboratory.endParent();
    }
  });
}

function addOutcome(results: Results, size: string, outcome: ChildOutcome): void {
  const { pauseUs = NaN, firstInstructionUs = NaN, pauseParts = {} } = outcome;
  results.add(`parent_pause_${size}`, "ms", pauseUs / US_PER_MS);
  for (const [part, value] of Object.entries(pauseParts)) {
    if (part.endsWith("Us"))
      results.add(`parent_pause_${size}_${part.slice(0, -2)}`, "ms", value / US_PER_MS);
    else results.add(`parent_pause_${size}_${part}`, "pages", value);
  }
  results.add(`first_instruction_${size}`, "ms", firstInstructionUs / US_PER_MS);
  results.add("first_instruction", "ms", firstInstructionUs / US_PER_MS);
}
