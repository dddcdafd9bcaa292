import { readFileSync } from "node:fs";
import { hrtime } from "node:process";
import { realClock, sleep } from "../../src/base/index.js";
import type { ChildOutcome } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../../test/support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../../test/support/sample-guest.js";
import { SampleGuest } from "./sample.js";
import { showProgress, type Bench } from "./suite.js";

const AGENT_PORT = 7270;
const PARENT_PORT = 8480;
const FIRST_CHILD_PORT = 8500;
const MEMORY_MIB = 256;
/** How much of its memory the parent has written, and then leaves alone. */
const WRITTEN_MIB = 150;
const MANY = 32;
/** Children of which the room they take is measured, and of those that are sent all of the memory. */
const IDLE = 16;
const IDLE_COPIED = 4;
/** How long a child is left to itself before its room is measured. */
const REST_MS = 5000;
const KIB_PER_MIB = 1024;
const US_PER_MS = 1000;

/** Many children of one instant on their parent's own host, with warm emulators: the time until each of them has answered over HTTP. */
export async function measureSameHost({ runs, results }: Bench): Promise<void> {
  await useHost(async (host) => {
    for (const isFrozen of [false, true]) {
      if (isFrozen) await host.call("guest.freeze", { name: "parent" });
      const name = `fanout_${MANY}${isFrozen ? "_frozen" : ""}`;
      // The first time compiles what the others run.
      for (let run = 0; run <= runs; run += 1) {
        await warm(host, MANY);
        const beganUs = nowUs();
        const children = await fork(host, { count: MANY });
        const forkedUs = nowUs();
        await Promise.all(children.map((_, index) => ask(host, FIRST_CHILD_PORT + index)));
        const answeredUs = nowUs();
        if (run > 0) {
          results.add(`${name}_all_run`, "ms", (forkedUs - beganUs) / US_PER_MS);
          results.add(`${name}_all_answer`, "ms", (answeredUs - beganUs) / US_PER_MS);
        }
        await warm(host, 0);
        await remove(host, children);
        showProgress(name, run, runs);
      }
    }
  });
}

/** What an idle child takes of the host's memory, its emulator included: pages that others have mapped too count by their share. */
export async function measureDensity({ runs, results }: Bench): Promise<void> {
  await useHost(async (host) => {
    for (let run = 1; run <= runs; run += 1) {
      const shared = await fork(host, { count: IDLE });
      for (const pss of await idlePss(host, shared)) results.add("child_pss", "MiB", pss);
      await remove(host, shared);
      const copied = await fork(host, { count: IDLE_COPIED, memory: "copied" });
      await whenTransfersEnd(host);
      for (const pss of await idlePss(host, copied)) results.add("child_pss_copied", "MiB", pss);
      await remove(host, copied);
      showProgress("density", run, runs);
    }
    await host.call("guest.freeze", { name: "parent" });
    const children = await fork(host, { count: IDLE });
    for (const pss of await idlePss(host, children)) results.add("child_pss_frozen", "MiB", pss);
    await remove(host, children);
  });
}

/** One host with a parent that has written most of its memory and rests. */
async function useHost(use: (host: Host) => Promise<void>): Promise<void> {
  const limits = { warmEmulators: MANY, sharedChildPercent: 25 };
  const hosts = await Hosts.start(1, {
    port: AGENT_PORT,
    configuration: { logLevel: "warn", limits },
  });
  try {
    const host = hosts.at(0);
    await runSample(host, { name: "parent", memoryMiB: MEMORY_MIB, hostPort: PARENT_PORT });
    const guest = new SampleGuest(`http://${host.address}:${PARENT_PORT}`);
    await guest.write(WRITTEN_MIB);
    await guest.rest();
    await use(host);
  } finally {
    await hosts.stop();
  }
}

async function warm(host: Host, count: number): Promise<void> {
  const { warm: ready } = await host.call("guest.warm", { name: "parent", count, network: "attached" });
  if (ready[0]?.count !== count) throw new Error(`${ready[0]?.count} of ${count} emulators are warm`);
}

async function fork(
  host: Host,
  options: { count: number; memory?: "shared" | "copied" },
): Promise<ChildOutcome[]> {
  const { transfers } = await host.call("guest.fork", {
    name: "parent",
    forwards: [`${FIRST_CHILD_PORT}:80`],
    ...options,
  });
  const failed = transfers.find(({ state }) => state !== "running");
  if (failed !== undefined) throw new Error(`a child failed: ${failed.error?.message}`);
  return transfers;
}

async function idlePss(host: Host, children: readonly ChildOutcome[]): Promise<number[]> {
  await Promise.all(children.map((_, index) => ask(host, FIRST_CHILD_PORT + index)));
  await sleep(realClock, REST_MS);
  const guests = await host.guests();
  return children.map(({ guest }) => pssMib(guests.get(guest)?.pid ?? 0));
}

/** The proportional set size of a process (proc(5), smaps_rollup). */
function pssMib(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss: +(\d+) kB/m.exec(rollup)?.[1] ?? Number.NaN) / KIB_PER_MIB;
}

async function remove(host: Host, children: readonly ChildOutcome[]): Promise<void> {
  for (const { guest } of children) {
    await host.call("guest.kill", { name: guest });
    await eventually(`${guest} is removed`, () =>
      host.call("guest.remove", { name: guest }).then(
        () => true,
        () => false,
      ),
    );
  }
}

function nowUs(): number {
  return Number(hrtime.bigint() / 1000n);
}
