import { readFileSync } from "node:fs";
import { hrtime } from "node:process";
import { realClock, sleep } from "../../src/base/index.js";
import type { ChildOutcome } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../../test/support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../../test/support/sample-guest.js";
import { processorSeconds } from "./processor-time.js";
import { SampleGuest } from "./sample.js";
import type { Results } from "./statistics.js";
import { showProgress, type Bench } from "./suite.js";

const AGENT_PORT = 7270;
const PARENT_PORT = 8480;
const FIRST_CHILD_PORT = 8500;
const MEMORY_MIB = 256;
/** How much of its memory the parent has written, and then leaves alone. */
const WRITTEN_MIB = 150;
const MANY = 32;
/** How many children are made at once, to see how the cost grows. */
const COUNTS = [1, 4, 16, MANY] as const;
/** Children of which the room they take is measured, and of those that are sent all of the memory. */
const IDLE = 16;
const IDLE_COPIED = 4;
/** How long a child is left to itself before its room is measured. */
const REST_MS = 5000;
/** How long a child has for an answer before it is asked over another connection as well, and how often that is done. */
const ASK_AGAIN_MS = 1200;
const ATTEMPTS = 20;
const KIB_PER_MIB = 1024;
const US_PER_MS = 1000;
const MS_PER_S = 1000;

/** Many children of one instant on their parent's own host, with warm emulators: the time until each of them has answered over HTTP. */
export async function measureSameHost({ runs, results }: Bench): Promise<void> {
  await useHost(async (host) => {
    for (const isFrozen of [false, true]) {
      if (isFrozen) await host.call("guest.freeze", { name: "parent" });
      for (const count of COUNTS) {
        const name = `fanout_${count}${isFrozen ? "_frozen" : ""}`;
        // The first time compiles what the others run.
        for (let run = count === COUNTS[0] ? 0 : 1; run <= runs; run += 1) {
          const fanout = await measureAtOnce(host, count);
          if (run > 0) addFanout(results, name, fanout);
          showProgress(name, run, runs);
        }
      }
    }
    for (let run = 1; run <= runs; run += 1) {
      results.add(`fanout_${MANY}_held_all_answer`, "ms", await measureHeld(host));
      showProgress(`fanout_${MANY}_held`, run, runs);
    }
  });
}

/** What many children of one instant took, the emulators' start left out. */
interface AtOnce {
  /** From the command until all run, and until all have answered. */
  runMs: number;
  answerMs: number;
  /** Processor time of each child's emulator from all of them running until all have answered, and the agent's from the command on. */
  childCpuMs: number;
  agentCpuMs: number;
}

async function measureAtOnce(host: Host, count: number): Promise<AtOnce> {
  await warm(host, count);
  const agentBefore = processorSeconds(host.pid);
  const beganUs = nowUs();
  const children = await fork(host, { count });
  const runMs = (nowUs() - beganUs) / US_PER_MS;
  const pids = await pidsOf(host, children);
  const before = secondsOf(pids);
  await askAll(host, children);
  const answerMs = (nowUs() - beganUs) / US_PER_MS;
  const childCpuMs = ((secondsOf(pids) - before) / count) * MS_PER_S;
  const agentCpuMs = (processorSeconds(host.pid) - agentBefore) * MS_PER_S;
  await clear(host, children);
  return { runMs, answerMs, childCpuMs, agentCpuMs };
}

function addFanout(results: Results, name: string, fanout: AtOnce): void {
  results.add(`${name}_all_run`, "ms", fanout.runMs);
  results.add(`${name}_all_answer`, "ms", fanout.answerMs);
  results.add(`${name}_child_cpu`, "ms", fanout.childCpuMs);
  results.add(`${name}_agent_cpu`, "ms", fanout.agentCpuMs);
}

/**
 * What is left when everything a fork consists of is done before: children of a frozen parent that are held with their device state loaded, from their first
 * instruction until all have answered.
 */
async function measureHeld(host: Host): Promise<number> {
  await warm(host, MANY);
  const children = await fork(host, { count: MANY, paused: true });
  const beganUs = nowUs();
  await Promise.all(children.map(({ transfer }) => host.call("transfer.run", { transfer })));
  await askAll(host, children);
  const answerMs = (nowUs() - beganUs) / US_PER_MS;
  await clear(host, children);
  return answerMs;
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
  if ((ready[0]?.count ?? 0) !== count) throw new Error(`${ready[0]?.count} of ${count} emulators are warm`);
}

async function fork(
  host: Host,
  options: { count: number; memory?: "shared" | "copied"; paused?: boolean },
): Promise<ChildOutcome[]> {
  const { transfers } = await host.call("guest.fork", {
    name: "parent",
    forwards: [`${FIRST_CHILD_PORT}:80`],
    ...options,
  });
  const expected = options.paused === true ? "paused" : "running";
  const failed = transfers.find(({ state }) => state !== expected);
  if (failed !== undefined) throw new Error(`a child failed: ${failed.error?.message}`);
  return transfers;
}

async function idlePss(host: Host, children: readonly ChildOutcome[]): Promise<number[]> {
  await askAll(host, children);
  await sleep(realClock, REST_MS);
  return (await pidsOf(host, children)).map((pid) => pssMib(pid));
}

async function askAll(host: Host, children: readonly ChildOutcome[]): Promise<void> {
  await Promise.all(children.map((_, index) => firstAnswer(host, FIRST_CHILD_PORT + index)));
}

/**
 * Asks a guest until it answers. QEMU's user-mode network gives up a connection's first packet when the guest has not said its address within a second, and
 * sends it again after six.
 */
async function firstAnswer(host: Host, port: number): Promise<void> {
  let answered = false;
  await new Promise<void>((resolve, reject) => {
    const attempt = (left: number): void => {
      ask(host, port).then(
        () => {
          answered = true;
          resolve();
        },
        (error: Error) => left === 0 && reject(error),
      );
      if (left === 0) return;
      void sleep(realClock, ASK_AGAIN_MS).then(() => {
        if (!answered) attempt(left - 1);
      });
    };
    attempt(ATTEMPTS);
  });
}

/** The children's emulators. */
async function pidsOf(host: Host, children: readonly ChildOutcome[]): Promise<number[]> {
  const guests = await host.guests();
  return children.map(({ guest }) => guests.get(guest)?.pid ?? 0);
}

function secondsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + processorSeconds(pid), 0);
}

/** The proportional set size of a process (proc(5), smaps_rollup). */
function pssMib(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss: +(\d+) kB/m.exec(rollup)?.[1] ?? Number.NaN) / KIB_PER_MIB;
}

/** Ends the children, and warm emulators that have been started in the place of those they took. */
async function clear(host: Host, children: readonly ChildOutcome[]): Promise<void> {
  await warm(host, 0);
  await remove(host, children);
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
