import { realClock, sleep } from "../../src/base/index.js";
import { isFinal, type ChildOutcome, type ParamsInput, type TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host, type HostDetails } from "../../test/support/hosts.js";
import { Proxy } from "../../test/chaos/proxy.js";
import { runSample, whenTransfersEnd } from "../../test/support/sample-guest.js";
import { processorSeconds } from "./processor-time.js";
import { SampleGuest } from "./sample.js";
import { MIN_SAMPLES_FOR_P999, type Metric } from "./statistics.js";

const PORT = 8480;
const CHILD = "child";
const CHILD_PORT = 8490;
const AGENT_PORT = 7270;
/** The hosts by name, and where the other one finds each of them when there is a distance between them. */
const ADDRESSES = {
  a: { agent: "127.0.0.11", proxy: "127.0.0.51" },
  b: { agent: "127.0.0.12", proxy: "127.0.0.52" },
} as const;
const MIGRATION_DEADLINE_MS = 180_000;
/** Between two questions whether a migration is over; the emulator is asked about its own as often. */
const ASK_INTERVAL_MS = 10;

/** How a migration went. */
export interface Migration {
  /** From the command's arrival until the child has every page; that the parent is removed then is no part of it, as with the emulator's own migration. */
  totalMs: number;
  /** From the parent's stop until the child runs. */
  downtimeMs: number;
  /** Processor time of both agents during that. */
  cpuSeconds: number;
  view: TransferView;
}

/** Two hosts, and one parent on the first that is forked to the second again and again. */
export class Laboratory {
  #parentHost: Host;
  #childHost: Host;

  private constructor(hosts: Hosts) {
    this.#parentHost = hosts.at(0);
    this.#childHost = hosts.at(1);
  }

  /** Where the parent runs. */
  get parentHost(): Host {
    return this.#parentHost;
  }

  /** Where its children go. */
  get childHost(): Host {
    return this.#childHost;
  }

  /** The parent. */
  get guest(): SampleGuest {
    return new SampleGuest(`http://${this.#parentHost.address}:${PORT}`);
  }

  /** The child, when it was forked with `forward`. */
  get child(): SampleGuest {
    return new SampleGuest(`http://${this.#childHost.address}:${CHILD_PORT}`);
  }

  /** The parent's emulator. */
  async emulator(): Promise<number> {
    const { guest } = await this.#parentHost.call("guest.show", { name: "parent" });
    if (guest.pid === undefined) throw new Error("the parent does not run");
    return guest.pid;
  }

  /** Starts the hosts' agents, lets them be used, and ends them with all their guests. */
  static async use(
    use: (laboratory: Laboratory) => Promise<void>,
    each: (name: string) => HostDetails = () => ({}),
  ): Promise<void> {
    const hosts = await Hosts.start(2, {
      port: AGENT_PORT,
      // As an agent of a real host rehearses.
      configuration: { logLevel: "warn", rehearsalMs: undefined },
      each,
    });
    try {
      await use(new Laboratory(hosts));
    } finally {
      await hosts.stop();
    }
  }

  /** The same with a proxy in front of each host, which keeps what it is given for half a round trip. */
  static async useAtDistance(
    use: (laboratory: Laboratory, setDistance: (roundTripMs: number) => void) => Promise<void>,
  ): Promise<void> {
    const proxies: Proxy[] = [];
    const port = AGENT_PORT;
    try {
      for (const { agent, proxy } of Object.values(ADDRESSES))
        proxies.push(await Proxy.open({ listen: { host: proxy, port }, to: { host: agent, port } }));
      const url = (name: string): string => `ws://${ADDRESSES[name === "a" ? "a" : "b"].proxy}:${port}`;
      const setDistance = (roundTripMs: number): void => {
        for (const proxy of proxies) proxy.set({ delayMs: roundTripMs / 2 });
      };
      const each = (name: string): HostDetails => {
        const other = name === "a" ? "b" : "a";
        return { configuration: { advertise: url(name), peers: { [other]: url(other) } } };
      };
      await Laboratory.use((laboratory) => use(laboratory, setDistance), each);
    } finally {
      await Promise.all(proxies.map((proxy) => proxy.close()));
    }
  }

  /** Boots the parent. */
  async boot(memoryMiB: number): Promise<void> {
    await runSample(this.parentHost, { name: "parent", memoryMiB, hostPort: PORT, append: "quiet" });
  }

  /** Forks the parent to a warm emulator of the other host, which is made ready first. */
  async fork(params: Partial<ParamsInput<"guest.fork">>): Promise<ChildOutcome> {
    await this.warm([CHILD]);
    return this.forkNow(params);
  }

  /** Has the other host make emulators ready, one for each child. */
  async warm(names: readonly string[], network: "isolated" | "attached" = "isolated"): Promise<void> {
    const to = [this.childHost.name];
    await this.parentHost.call("guest.warm", { name: "parent", to, count: names.length, network });
  }

  /** Forks the parent to the other host. */
  async forkNow(params: Partial<ParamsInput<"guest.fork">>): Promise<ChildOutcome> {
    const [outcome] = await this.#forkInto([CHILD], params);
    if (outcome === undefined) throw new Error("a fork into one child has one outcome");
    return outcome;
  }

  /** Forks the parent to several warm emulators of the other host. */
  async forkMany(count: number): Promise<ChildOutcome[]> {
    const names = Array.from({ length: count }, (_, index) => `${CHILD}-${index}`);
    await this.warm(names);
    return this.#forkInto(names);
  }

  async #forkInto(names: string[], params: Partial<ParamsInput<"guest.fork">> = {}): Promise<ChildOutcome[]> {
    const to = [this.childHost.name];
    const { transfers } = await this.parentHost.call("guest.fork", { name: "parent", to, names, ...params });
    const failed = transfers.find(({ state }) => state === "failed");
    if (failed !== undefined)
      throw new Error(`the fork failed: ${failed.error?.message ?? "no reason given"}`);
    return transfers;
  }

  /** Migrates the parent over lanes that wait for it, until all of it is there and gone here, and exchanges the hosts' roles. */
  async migrate(params: Partial<ParamsInput<"guest.migrate">> = {}): Promise<Migration> {
    await this.warmForMigration();
    return this.migrateNow(params);
  }

  /** Has boot files sent to the other host and lanes made ready. The emulator of a migration is started in it: it has its guest's identity on its command line. */
  async warmForMigration(): Promise<void> {
    await this.#parentHost.call("guest.warm", { name: "parent", to: [this.#childHost.name], count: 1 });
  }

  /** As `migrate`, with nothing made ready first. */
  async migrateNow(params: Partial<ParamsInput<"guest.migrate">> = {}): Promise<Migration> {
    const [source, destination] = [this.#parentHost, this.#childHost];
    const used = (): number => processorSeconds(source.pid) + processorSeconds(destination.pid);
    const usedBefore = used();
    const { transfers } = await source.call("guest.migrate", {
      name: "parent",
      to: destination.name,
      ...params,
    });
    const outcome = transfers[0];
    const transfer = outcome?.transfer ?? 0;
    const there = await whenThere(destination, transfer);
    const cpuSeconds = used() - usedBefore;
    const view = await this.whenComplete(transfer);
    [this.#parentHost, this.#childHost] = [destination, source];
    const downtimeMs = (outcome?.pauseUs ?? NaN) / 1000;
    // Both hosts have this machine's clock.
    const totalMs = there.startedAtMs + there.elapsedMs - view.startedAtMs;
    return { totalMs, downtimeMs, cpuSeconds, view };
  }

  /** Port of the child's host that leads to the child. */
  get forward(): string {
    return `${CHILD_PORT}:80`;
  }

  /** How long the child of a transfer waited for pages, as its host counted it. */
  async faults(transfer: number): Promise<Metric> {
    const { transfers } = await this.childHost.call("transfer.list", {});
    const faults = transfers.find(({ id }) => id === transfer)?.faults;
    if (faults === undefined) throw new Error(`the child's host knows no transfer ${transfer}`);
    const { count, p50Us, p90Us, p99Us, p999Us, maxUs } = faults;
    const p999 = count >= MIN_SAMPLES_FOR_P999 && p999Us !== undefined ? { p999: p999Us } : {};
    return { unit: "µs", p50: p50Us, p90: p90Us, p99: p99Us, ...p999, max: maxUs, n: count };
  }

  /** Waits until the child of a fork has every page. */
  async whenComplete(transfer: number): Promise<TransferView> {
    await whenTransfersEnd(this.#parentHost, MIGRATION_DEADLINE_MS);
    const { transfer: view } = await this.#parentHost.call("transfer.show", { transfer });
    if (view.phase !== "complete") throw new Error(`the transfer is ${view.phase}: ${view.message}`);
    return view;
  }

  /** Ends the child, complete or not, and leaves the parent free for the next fork. */
  async endChild(): Promise<void> {
    await this.endChildren([CHILD]);
  }

  async endChildren(names: readonly string[]): Promise<void> {
    for (const name of names) await this.childHost.call("guest.kill", { name }).catch(() => {});
    const isFree = async (): Promise<boolean> => {
      const { transfers } = await this.parentHost.call("transfer.list", { active: true });
      if (transfers.length > 0) return false;
      const guests = await this.childHost.guests();
      const left = names.filter((name) => guests.has(name));
      for (const name of left) await this.childHost.call("guest.remove", { name }).catch(() => {});
      return left.length === 0;
    };
    await eventually("the children are gone", isFree);
    // The parent's writer gets back to its full pace.
    await sleep(realClock, 300);
  }

  async endParent(): Promise<void> {
    await this.parentHost.call("guest.kill", { name: "parent" });
    await eventually("the parent is gone", async () => {
      await this.parentHost.call("guest.remove", { name: "parent" }).catch(() => {});
      return !(await this.parentHost.guests()).has("parent");
    });
  }
}

/** Waits until a child has every page, and says how its host saw the transfer. */
async function whenThere(host: Host, transfer: number): Promise<TransferView> {
  const untilUs = realClock.nowUs() + MIGRATION_DEADLINE_MS * 1000;
  while (realClock.nowUs() < untilUs) {
    const { transfer: view } = await host.call("transfer.show", { transfer });
    if (isFinal(view.phase)) return view;
    await sleep(realClock, ASK_INTERVAL_MS);
  }
  throw new Error(`transfer ${transfer} is not over after ${MIGRATION_DEADLINE_MS} ms`);
}
