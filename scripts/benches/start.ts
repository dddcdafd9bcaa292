import { hrtime } from "node:process";
import type { ChildOutcome } from "../../src/control/index.js";
import { Laboratory } from "./laboratory.js";
import type { Results } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

/** Sizes of the parent's memory, and how much of it the guest has written before it rests. */
const SIZES = [
  { name: "256MiB", mib: 256, writtenMib: 150 },
  { name: "1GiB", mib: 1024, writtenMib: 600 },
  { name: "4GiB", mib: 4096, writtenMib: 2400 },
] as const;
const US_PER_MS = 1000;

/** Forks a resting guest to a warm emulator, and asks the child for an answer as soon as it runs. */
export async function measureStart({ runs, results }: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    for (const size of SIZES) {
      await laboratory.boot(size.mib);
      await laboratory.guest.write(size.writtenMib);
      await laboratory.guest.rest();
      // The first fork compiles what the others run.
      for (let run = 0; run <= runs; run += 1) {
        await laboratory.warm(["child"], "attached");
        const beganUs = nowUs();
        const outcome = await laboratory.forkNow({ forwards: [laboratory.forward] });
        await laboratory.child.ask("/counter");
        const answeredUs = nowUs() - beganUs;
        await laboratory.endChild();
        showProgress(`start ${size.name}`, run, runs);
        if (run > 0) addOutcome(results, size.name, outcome, answeredUs);
      }
      await laboratory.endParent();
    }
  });
}

function addOutcome(results: Results, size: string, outcome: ChildOutcome, answeredUs: number): void {
  const { firstInstructionUs = NaN, startMarks = {} } = outcome;
  const isMain = size === SIZES[0].name;
  if (isMain) {
    results.add("first_instruction", "ms", firstInstructionUs / US_PER_MS);
    results.add("first_answer", "ms", answeredUs / US_PER_MS);
  }
  results.add(`first_instruction_${size}`, "ms", firstInstructionUs / US_PER_MS);
  results.add(`first_answer_${size}`, "ms", answeredUs / US_PER_MS);
  for (const [mark, atUs] of Object.entries(startMarks))
    results.add(`first_instruction_${size}_${mark.replace(/Us$/, "")}`, "ms", atUs / US_PER_MS);
}

function nowUs(): number {
  return Number(hrtime.bigint() / 1000n);
}
