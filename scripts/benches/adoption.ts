import { realClock, sleep } from "../../src/base/index.js";
import { eventually, type Host } from "../../test/support/hosts.js";
import { ask, runSample } from "../../test/support/sample-guest.js";
import { Laboratory } from "./laboratory.js";
import { showProgress, type Bench } from "./suite.js";

const GUESTS = 8;
const GUEST_MIB = 128;
const STAMPED_MIB = 24;
const FIRST_PORT = 8500;
const CHILD_PORT = 8510;
/** The child reads for so long before something happens to its parent's agent. */
const LEAD_MS = 100;

interface Latency {
  writer: { max_us: number };
  reader: { max_us: number };
}

/** What was seen of one replacement of the parent's agent. */
interface Sample {
  /** From the signal, or the start of the new agent, to its being ready, in ms. */
  readyMs: number;
  /** The longest that one of the guests waited for 16 writes, in ms. */
  writeMs: number;
  /** The longest that a child waited for one of its parent's pages, in ms. */
  readMs: number;
}

/**
 * Eight guests write, one of them is forked with the sweep held, its child reads, and meanwhile the parent's agent is replaced: not at all, by SIGKILL and a new start, or
 * by a takeover. Throws when a guest stopped or a page was wrong.
 */
export async function measureAdoption(bench: Bench): Promise<void> {
  await Laboratory.use(async (laboratory) => {
    const host = laboratory.parentHost;
    for (let index = 0; index < GUESTS; index += 1) {
      await runSample(host, {
        name: `g${index}`,
        memoryMiB: GUEST_MIB,
        hostPort: FIRST_PORT + index,
        append: "quiet",
      });
      await ask(host, FIRST_PORT + index, `/stamp/start?mib=${STAMPED_MIB}&rate=1&fill=page`);
    }
    await measureWays(laboratory, bench);
  });
}

async function measureWays(laboratory: Laboratory, { runs, results }: Bench): Promise<void> {
  const host = laboratory.parentHost;
  const ways = {
    none: () => sleep(realClock, 1000),
    kill: async () => {
      await host.end("SIGKILL");
      await host.start();
    },
    swap: async () => {
      await host.takeOver();
      const { takeover } = await host.call("agent.info", {});
      results.add("adoption_swap_waited", "ms", takeover?.waitedMs ?? Number.NaN);
    },
  };
  for (const [name, replace] of Object.entries(ways)) {
    for (let run = 1; run <= runs; run += 1) {
      const { readyMs, writeMs, readMs } = await measureOnce(laboratory, replace);
      if (name !== "none") results.add(`adoption_${name}_ready`, "ms", readyMs);
      results.add(`adoption_${name}_longest_write`, "ms", writeMs);
      results.add(`adoption_${name}_longest_read`, "ms", readMs);
      showProgress(`adoption_${name}`, run, runs);
    }
  }
}

async function measureOnce(laboratory: Laboratory, replace: () => Promise<unknown>): Promise<Sample> {
  const { parentHost: host, childHost } = laboratory;
  const before = await pids(host);
  const { transfers } = await host.call("guest.fork", {
    name: "g0",
    to: [childHost.name],
    names: ["child"],
    sweep: "held",
    forwards: [`${CHILD_PORT}:80`],
  });
  if (transfers[0]?.state !== "running") throw new Error(`the fork failed: ${transfers[0]?.error?.message}`);
  await latencies(host, "/latency/reset");
  await ask(childHost, CHILD_PORT, "/latency/reset");
  const reading = ask<{ bad: number }>(childHost, CHILD_PORT, "/stamp/verify?order=random");
  await sleep(realClock, LEAD_MS);
  const beganUs = realClock.nowUs();
  await replace();
  const readyMs = (realClock.nowUs() - beganUs) / 1000;
  const { bad } = await reading;
  if (bad !== 0) throw new Error(`${bad} pages of the child are not what they were in the parent`);
  const child = await ask<Latency>(childHost, CHILD_PORT, "/latency");
  const writeUs = Math.max(...(await latencies(host, "/latency")).map(({ writer }) => writer.max_us));
  const now = await pids(host);
  if (before.join() !== now.join())
    throw new Error(`a guest has stopped: processes ${before.join()}, then ${now.join()}`);
  await endChild(laboratory);
  return { readyMs, writeMs: writeUs / 1000, readMs: child.reader.max_us / 1000 };
}

function latencies(host: Host, path: string): Promise<Latency[]> {
  return Promise.all(
    Array.from({ length: GUESTS }, (_, index) => ask<Latency>(host, FIRST_PORT + index, path)),
  );
}

/** The emulators' processes of guests that run. */
async function pids(host: Host): Promise<number[]> {
  const guests = [...(await host.guests()).values()].toSorted((left, right) =>
    left.name.localeCompare(right.name),
  );
  const stopped = guests.find(({ state }) => state !== "running");
  if (stopped !== undefined) throw new Error(`guest ${stopped.name} is ${stopped.state}: ${stopped.message}`);
  return guests.map(({ pid }) => pid ?? 0);
}

async function endChild({ parentHost, childHost }: Laboratory): Promise<void> {
  await childHost.call("guest.kill", { name: "child" });
  await eventually("the child is gone", async () => {
    const { transfers } = await parentHost.call("transfer.list", { active: true });
    await childHost.call("guest.remove", { name: "child" }).catch(() => {});
    return transfers.length === 0 && !(await childHost.guests()).has("child");
  });
}
