import { realClock, sleep } from "../../src/base/index.js";
import { eventually, type Host } from "../../test/support/hosts.js";
import { Laboratory } from "./laboratory.js";
import { userSeconds } from "./processor-time.js";
import { Rival } from "./rival.js";
import { feel, Feelings } from "./stall.js";
import { showProgress, type Bench } from "./suite.js";
import type { Moved, Mover } from "./turns.js";

const GUEST_MIB = 1024;
const WRITTEN_MIB = 600;
const WINDOW_MS = 4000;
/** An agent that does not rehearse waits as long as one that does: neither has just been started. */
const OVER_MS = 5000;

/** The same agents with and without a rehearsal. */
const KINDS = [
  { suffix: "", configuration: {} },
  { suffix: "_unrehearsed", configuration: { rehearsalMs: 0 } },
] as const;

/** What a guest feels of the first migration of two agents that have just been started, with and without what they rehearse, alternately. */
export async function measureFirst({ runs, results, versusQemu }: Bench): Promise<void> {
  const feelings = new Feelings(results);
  for (let run = 1; run <= runs; run += 1) {
    for (const { suffix, configuration } of KINDS) {
      const measure = (laboratory: Laboratory): Promise<void> => measureOne(laboratory, suffix);
      await Laboratory.use(measure, () => ({ configuration }));
    }
    showProgress("first", run, runs);
  }

  async function measureOne(laboratory: Laboratory, suffix: string): Promise<void> {
    await laboratory.boot(GUEST_MIB);
    const { guest } = laboratory;
    await guest.write(WRITTEN_MIB);
    await guest.rest();
    const hosts = [laboratory.parentHost, laboratory.childHost];
    for (const host of hosts) await whenRehearsed(host, results, suffix);
    await sleep(realClock, OVER_MS);
    const used = (): number => hosts.reduce((sum, { pid }) => sum + userSeconds(pid), 0);
    let userBefore = 0;
    const move = async (): Promise<Moved> => {
      // Emulators, lanes and boot files that are made ready before are none of it.
      await laboratory.warmForMigration();
      userBefore = used();
      return laboratory.migrateNow();
    };
    const mover: Mover = { suffix: "", guest: () => laboratory.guest, move };
    const { touches, moved } = await feel(mover, { mode: "read", windowMs: WINDOW_MS });
    feelings.add("first_stall", suffix, touches);
    results.add(`first_total${suffix}`, "ms", moved.totalMs);
    results.add(`first_cpu${suffix}`, "s", moved.cpuSeconds);
    results.add(`first_user${suffix}`, "s", used() - userBefore);
    if (versusQemu && suffix === "") await measureRival(laboratory);
    await laboratory.endParent();
  }

  async function measureRival(laboratory: Laboratory): Promise<void> {
    await Rival.use(await laboratory.emulator(), async (rival) => {
      await rival.guest.write(WRITTEN_MIB);
      await rival.guest.rest();
      const move = () => rival.migrate("preempt");
      const mover: Mover = { suffix: "_qemu_preempt", guest: () => rival.guest, move };
      const { touches, moved } = await feel(mover, { mode: "read", windowMs: WINDOW_MS });
      feelings.add("first_stall", mover.suffix, touches);
      results.add(`first_total${mover.suffix}`, "ms", moved.totalMs);
      results.add(`first_cpu${mover.suffix}`, "s", moved.cpuSeconds);
    });
  }
}

async function whenRehearsed(host: Host, results: Bench["results"], suffix: string): Promise<void> {
  const view = async () => (await host.call("agent.info", {})).rehearsal;
  await eventually(`${host.name} has rehearsed`, async () => {
    const phase = (await view())?.phase;
    return phase !== "waiting" && phase !== "playing";
  });
  const rehearsed = await view();
  if (rehearsed?.phase === "failed") throw new Error(`${host.name} could not rehearse: ${rehearsed.problem}`);
  if (suffix === "") results.add("first_rehearsal_cpu", "ms", rehearsed?.processorMs ?? 0);
}
