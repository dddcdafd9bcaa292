import { hrtime } from "node:process";
import { Laboratory } from "./laboratory.js";
import type { Results } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

const GUEST_MIB = 256;
/** Written by the parent, so that there is more memory than a child needs for its answer. */
const WRITTEN_MIB = 100;
const US_PER_MS = 1000;
/** A link on which memory takes seconds and an answer need not. */
const SLOW_BYTES_PER_SECOND = 16 * 1024 * 1024;

const CASES = [
  { name: "held", params: { sweep: "held" } },
  { name: "swept", params: {} },
  { name: "swept_slowly", params: { rateLimitBytesPerSecond: SLOW_BYTES_PER_SECOND } },
] as const;

/** How many pages a child waits for until its first answer over HTTP, and how long that takes, with and without what earlier children taught, in turns. */
export async function measureWorkingSet({ runs, results }: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    await laboratory.boot(GUEST_MIB);
    await laboratory.guest.write(WRITTEN_MIB);
    await laboratory.guest.rest();
    // The first child teaches, and compiles what the others run.
    await measure(laboratory, { sweep: "held" });
    for (const { name, params } of CASES) {
      for (let run = 1; run <= runs; run += 1) {
        add(results, `${name}_without`, await measure(laboratory, { ...params, workingSet: false }));
        add(results, `${name}_with`, await measure(laboratory, params));
        showProgress(`working set, ${name}`, run, runs);
      }
    }
    await laboratory.endParent();
  });
}

interface Answered {
  faults: number;
  answeredUs: number;
  loadUs: number;
  ahead: number;
}

async function measure(
  laboratory: Laboratory,
  params: { sweep?: "held"; workingSet?: false; rateLimitBytesPerSecond?: number },
): Promise<Answered> {
  await laboratory.warm(["child"], "attached");
  const beganUs = nowUs();
  const { transfer, loadUs = NaN } = await laboratory.forkNow({ forwards: [laboratory.forward], ...params });
  await laboratory.child.ask("/counter");
  const answeredUs = nowUs() - beganUs;
  const { n: faults } = await laboratory.faults(transfer);
  const { transfer: view } = await laboratory.parentHost.call("transfer.show", { transfer });
  await laboratory.endChild();
  return { faults, answeredUs, loadUs, ahead: view.workingSet?.sent ?? 0 };
}

function add(results: Results, name: string, { faults, answeredUs, loadUs, ahead }: Answered): void {
  results.add(`faults_to_answer_${name}`, "pages", faults);
  results.add(`first_answer_${name}`, "ms", answeredUs / US_PER_MS);
  results.add(`device_state_loaded_${name}`, "ms", loadUs / US_PER_MS);
  if (ahead > 0) results.add(`sent_ahead_${name}`, "pages", ahead);
}

function nowUs(): number {
  return Number(hrtime.bigint() / 1000n);
}
