import { realClock, sleep } from "../../src/base/index.js";
import { Laboratory } from "./laboratory.js";
import { showProgress, type Bench } from "./suite.js";

const US_PER_MS = 1000;
const GUEST_MIB = 1024;
const WRITTEN_MIB = 400;
/** MiB/s; without a number as fast as it can. */
const RATES = [1, 30, 300, undefined] as const;
const CHILDREN = [1, 2, 4, 8] as const;
const SMALL_GUEST_MIB = 256;
const SMALL_WRITTEN_MIB = 100;
const ROUND_TRIPS_MS = [0, 1, 10] as const;
const PINGS = 20;
/** For so long a child touches pages that it lacks. */
const TOUCHING_MS = 2000;

/** How the cost of a fork grows with what the parent writes, the network's round trip and the number of children; with memory, see `pause` and `migrate`. */
export async function measureGrowth(bench: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    await measureRates(laboratory, bench);
    await measureChildren(laboratory, bench);
  });
  await Laboratory.useAtDistance(async (laboratory, setDistance) => {
    await laboratory.boot(GUEST_MIB);
    await laboratory.guest.write(WRITTEN_MIB);
    await laboratory.guest.rest();
    for (const roundTripMs of ROUND_TRIPS_MS) {
      setDistance(roundTripMs);
      await measureRoundTrip(laboratory, bench, `${roundTripMs}ms`);
    }
    setDistance(0);
    await laboratory.endParent();
  });
}

async function measureRates(laboratory: Laboratory, { runs, results }: Bench): Promise<void> {
  await laboratory.boot(GUEST_MIB);
  await laboratory.guest.write(WRITTEN_MIB);
  for (const rate of RATES) {
    const name = `writing_${rate ?? "full"}`;
    await laboratory.guest.pace(rate ?? 0);
    for (let run = 0; run <= runs; run += 1) {
      const outcome = await laboratory.fork({});
      const { elapsedMs } = await laboratory.whenComplete(outcome.transfer);
      await laboratory.endChild();
      showProgress(name, run, runs);
      if (run === 0) continue;
      results.add(`parent_pause_${name}`, "ms", (outcome.pauseUs ?? NaN) / US_PER_MS);
      results.add(`complete_${name}`, "ms", elapsedMs);
    }
  }
  await laboratory.endParent();
}

async function measureChildren(laboratory: Laboratory, { runs, results }: Bench): Promise<void> {
  await laboratory.boot(SMALL_GUEST_MIB);
  await laboratory.guest.write(SMALL_WRITTEN_MIB);
  await laboratory.guest.pace(1);
  for (const count of CHILDREN) {
    const name = `children_${count}`;
    for (let run = 0; run <= runs; run += 1) {
      const outcomes = await laboratory.forkMany(count);
      const views = [];
      for (const { transfer } of outcomes) views.push(await laboratory.whenComplete(transfer));
      await laboratory.endChildren(outcomes.map(({ guest }) => guest));
      showProgress(name, run, runs);
      if (run === 0) continue;
      results.add(`parent_pause_${name}`, "ms", (outcomes[0]?.pauseUs ?? NaN) / US_PER_MS);
      const lastUs = Math.max(...outcomes.map(({ firstInstructionUs = NaN }) => firstInstructionUs));
      results.add(`first_instruction_${name}`, "ms", lastUs / US_PER_MS);
      results.add(`complete_${name}`, "ms", Math.max(...views.map(({ elapsedMs }) => elapsedMs)));
    }
  }
  await laboratory.endParent();
}

async function measureRoundTrip(
  laboratory: Laboratory,
  { runs, results }: Bench,
  name: string,
): Promise<void> {
  const { parentHost, childHost } = laboratory;
  const { roundTripsUs } = await parentHost.call("peer.ping", { to: childHost.name, count: PINGS });
  for (const roundTripUs of roundTripsUs) results.add(`round_trip_${name}`, "µs", roundTripUs);
  for (let run = 0; run <= runs; run += 1) {
    const held = await laboratory.fork({ sweep: "held", forwards: [laboratory.forward] });
    await laboratory.child.startTouching({ mode: "read", rate: 0, thresholdUs: 0 });
    await sleep(realClock, TOUCHING_MS);
    await laboratory.child.stopTouching();
    const faults = await laboratory.faults(held.transfer);
    await laboratory.endChild();
    const swept = await laboratory.fork({});
    const { elapsedMs } = await laboratory.whenComplete(swept.transfer);
    await laboratory.endChild();
    showProgress(`rtt ${name}`, run, runs);
    if (run === 0) continue;
    results.add(`first_instruction_rtt_${name}`, "ms", (held.firstInstructionUs ?? NaN) / US_PER_MS);
    results.set(`fault_rtt_${name}`, faults);
    results.add(`sweep_rate_rtt_${name}`, "MiB/s", WRITTEN_MIB / (elapsedMs / 1000));
  }
}
