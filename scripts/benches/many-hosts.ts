import { execFileSync } from "node:child_process";
import type { TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../../test/support/hosts.js";
import { runSample, whenTransfersEnd } from "../../test/support/sample-guest.js";
import { processorSeconds } from "./processor-time.js";
import { SampleGuest } from "./sample.js";
import type { Results } from "./statistics.js";
import { StarNetwork } from "./star-network.js";
import { showProgress, type Bench } from "./suite.js";

const CHILDREN = 8;
const PORT = 8480;
const MEMORY_MIB = 256;
const STAMPED_MIB = 128;
const FORK_DEADLINE_MS = 300_000;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

type RelayShape = "chain" | "tree" | "none";

/** What a fork to other hosts has cost. */
interface Fanout {
  /** From the first child's first instruction until the last has every page. */
  completeMs: number;
  /** What left the parent's host, in multiples of what its guest's memory holds. */
  egress: number;
  /** What of that were answers to faults. */
  urgentEgress: number;
  /** Processor time of all agents for each GiB that a child was given, in s. */
  cpuSecondsPerGib: number;
}

/** Nine hosts, of which the first has the parent. */
class ManyHosts {
  readonly #network: StarNetwork;
  readonly #hosts: Hosts;

  constructor(network: StarNetwork, hosts: Hosts) {
    this.#network = network;
    this.#hosts = hosts;
  }

  get #parent(): Host {
    return this.#hosts.at(0);
  }

  /** Boots the parent and has it fill its memory with what no compression and no hole makes small. */
  async boot(): Promise<void> {
    await runSample(this.#parent, { name: "parent", memoryMiB: MEMORY_MIB, hostPort: PORT, append: "quiet" });
    const guest = new SampleGuest(`http://${this.#parent.address}:${PORT}`);
    await guest.ask(`/stamp/start?mib=${STAMPED_MIB}`);
    await eventually(
      "the guest has written its memory",
      async () => (await guest.ask<{ generation: number }>("/stamp/status")).generation > 0,
      FORK_DEADLINE_MS,
    );
    await guest.ask("/stamp/stop");
  }

  /** Forks the parent to so many hosts, waits for all memory, and ends the children. */
  async fork(children: number, relay: RelayShape): Promise<Fanout> {
    const hosts = this.#hosts.all.slice(1, 1 + children);
    const sentBefore = this.#network.sentBytes(0);
    const cpuBefore = this.#cpuSeconds();
    const { transfers } = await this.#parent.call("guest.fork", {
      name: "parent",
      to: hosts.map(({ name }) => name),
      names: hosts.map(({ name }) => `child-${name}`),
      relay,
      compression: "none",
    });
    await whenTransfersEnd(this.#parent, FORK_DEADLINE_MS);
    const sentBytes = this.#network.sentBytes(0) - sentBefore;
    const cpuSeconds = this.#cpuSeconds() - cpuBefore;
    const views = await Promise.all(
      transfers.map(
        async ({ transfer }) => (await this.#parent.call("transfer.show", { transfer })).transfer,
      ),
    );
    requireComplete(views);
    await Promise.all(hosts.map((host) => endGuest(host, `child-${host.name}`)));
    const firstMs = Math.min(...views.map(({ firstInstructionUs }) => (firstInstructionUs ?? 0) / 1000));
    const residentBytes = this.#residentBytes();
    return {
      completeMs: Math.max(...views.map(({ elapsedMs }) => elapsedMs)) - firstMs,
      egress: sentBytes / residentBytes,
      urgentEgress: views.reduce((sum, { bytes }) => sum + bytes.urgent, 0) / residentBytes,
      cpuSecondsPerGib: cpuSeconds / ((children * residentBytes) / GIB),
    };
  }

  #cpuSeconds(): number {
    return this.#hosts.all.reduce((sum, { pid }) => sum + processorSeconds(pid), 0);
  }

  #residentBytes(): number {
    const used = execFileSync("du", ["-s", "-B1", this.#parent.memoryDirectory], { encoding: "utf8" });
    const bytes = Number(used.split("\t")[0]);
    if (!(bytes > STAMPED_MIB * MIB)) throw new Error(`the parent's memory holds ${bytes} bytes only`);
    return bytes;
  }
}

function requireComplete(views: readonly TransferView[]): void {
  for (const { phase, host, error } of views)
    if (phase !== "complete") throw new Error(`the child on ${host} is ${phase}: ${error?.message ?? ""}`);
}

async function endGuest(host: Host, name: string): Promise<void> {
  await host.call("guest.kill", { name });
  await eventually(`${name} is gone`, async () => {
    await host.call("guest.remove", { name }).catch(() => {});
    return !(await host.guests()).has(name);
  });
}

/** One round at a rate of the links: one child, then eight in each way. */
async function measureRound(
  laboratory: ManyHosts,
  { results, ways, suffix }: { results: Results; ways: readonly RelayShape[]; suffix: string },
): Promise<void> {
  const one = await laboratory.fork(1, "none");
  results.add(`complete_1${suffix}`, "ms", one.completeMs);
  results.add(`parent_egress_1${suffix}`, "×", one.egress);
  results.add(`complete_1${suffix}_cpu`, "s/GiB", one.cpuSecondsPerGib);
  for (const relay of ways) {
    const name = `${CHILDREN}${suffix}${relay === "chain" ? "" : `_${relay}`}`;
    const all = await laboratory.fork(CHILDREN, relay);
    results.add(`parent_egress_${name}`, "×", all.egress);
    results.add(`parent_egress_${name}_urgent`, "×", all.urgentEgress);
    results.add(`complete_${name}`, "ms", all.completeMs);
    results.add(`complete_${name}_of_1`, "×", all.completeMs / one.completeMs);
    results.add(`complete_${name}_cpu`, "s/GiB", all.cpuSecondsPerGib);
  }
}

/**
 * What leaves the parent's host, and how long all takes, with one child and with eight on hosts of their own, that pass on to each other or do not. At 1 Gbit/s nine
 * hosts in one machine are held up by its processors rather than by their links; at 100 Mbit/s by their links.
 */
export async function measureManyHosts({ runs, results }: Bench): Promise<void> {
  const network = new StarNetwork(1 + CHILDREN);
  try {
    const hosts = await Hosts.start(1 + CHILDREN, {
      port: 7290,
      tls: true,
      configuration: { logLevel: "warn" },
      each: (name) => {
        const index = name.charCodeAt(0) - "a".charCodeAt(0);
        return { address: network.address(index), prefix: network.inside(index) };
      },
    });
    try {
      const laboratory = new ManyHosts(network, hosts);
      await laboratory.boot();
      // Hosts that have never had a child of this guest are sent its boot files first.
      await laboratory.fork(CHILDREN, "chain");
      for (let run = 0; run < runs; run += 1) {
        showProgress(`${CHILDREN} hosts`, run, runs);
        network.setRate(1000);
        await measureRound(laboratory, { results, ways: ["chain", "tree", "none"], suffix: "" });
        network.setRate(100);
        await measureRound(laboratory, { results, ways: ["chain", "tree"], suffix: "_100mbit" });
      }
      showProgress(`${CHILDREN} hosts`, runs, runs);
    } finally {
      await hosts.stop();
    }
  } finally {
    network.close();
  }
}
