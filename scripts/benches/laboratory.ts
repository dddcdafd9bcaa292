import { realClock, sleep } from "../../src/base/index.js";
import type { ChildOutcome, ParamsInput } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../../test/support/hosts.js";
import { ask, runSample } from "../../test/support/sample-guest.js";

const PORT = 8480;
const CHILD_PORT = 8490;

/** Two hosts, and one parent on the first that is forked to the second again and again. */
export class Laboratory {
  readonly parentHost: Host;
  readonly childHost: Host;

  private constructor(hosts: Hosts) {
    this.parentHost = hosts.at(0);
    this.childHost = hosts.at(1);
  }

  /** Starts the hosts' agents, lets them be used, and ends them with all their guests. */
  static async use(use: (laboratory: Laboratory) => Promise<void>): Promise<void> {
    const hosts = await Hosts.start(2, { port: 7270, built: true, configuration: { logLevel: "warn" } });
    try {
      await use(new Laboratory(hosts));
    } finally {
      await hosts.stop();
    }
  }

  /** Boots the parent. */
  async boot(memoryMiB: number): Promise<void> {
    await runSample(this.parentHost, { name: "parent", memoryMiB, hostPort: PORT, append: "quiet" });
  }

  /** Has the guest stamp `mib` MiB of its memory again and again, and waits until all of it was written once. */
  async write(mib: number): Promise<void> {
    const { running } = await ask<{ running?: boolean }>(this.parentHost, PORT, `/stamp/start?mib=${mib}`);
    if (running !== true) throw new Error(`the guest has no room for ${mib} MiB of stamped pages`);
    await eventually(
      `the guest has written ${mib} MiB`,
      async () => (await ask<{ generation: number }>(this.parentHost, PORT, "/stamp/status")).generation > 0,
      120_000,
    );
  }

  /** Ends the writing; what was written stays. */
  async rest(): Promise<void> {
    await ask(this.parentHost, PORT, "/stamp/stop");
  }

  /** Forks the parent to a warm emulator of the other host. */
  async fork(params: Partial<ParamsInput<"guest.fork">>): Promise<ChildOutcome> {
    await this.parentHost.call("guest.warm", { name: "parent", to: [this.childHost.name], count: 1 });
    const { transfers } = await this.parentHost.call("guest.fork", {
      name: "parent",
      to: [this.childHost.name],
      names: ["child"],
      ...params,
    });
    const outcome = transfers[0];
    if (outcome === undefined || outcome.state === "failed") {
      throw new Error(`the fork failed: ${outcome?.error?.message ?? "no outcome"}`);
    }
    return outcome;
  }

  /** Has the child read all its stamped pages in random order, each of which is a fault when it is missing. */
  async readAll(): Promise<void> {
    const { bad } = await ask<{ bad: number }>(this.childHost, CHILD_PORT, "/stamp/verify?order=random");
    if (bad !== 0) throw new Error(`${bad} pages of the child are not what they were in the parent`);
  }

  /** Port of the child's host that leads to the child. */
  get forward(): string {
    return `${CHILD_PORT}:80`;
  }

  /** What the child's host counted of a transfer. */
  async faults(
    transfer: number,
  ): Promise<{ count: number; p50Us: number; p90Us: number; p99Us: number; maxUs: number }> {
    const { transfers } = await this.childHost.call("transfer.list", {});
    const faults = transfers.find(({ id }) => id === transfer)?.faults;
    if (faults === undefined) throw new Error(`the child's host knows no transfer ${transfer}`);
    return faults;
  }

  /** Ends the child, complete or not, and leaves the parent free for the next fork. */
  async endChild(): Promise<void> {
    await this.childHost.call("guest.kill", { name: "child" }).catch(() => {});
    const isFree = async (): Promise<boolean> => {
      const { transfers } = await this.parentHost.call("transfer.list", { active: true });
      if (transfers.length > 0) return false;
      if (!(await this.childHost.guests()).has("child")) return true;
      await this.childHost.call("guest.remove", { name: "child" }).catch(() => {});
      return false;
    };
    await eventually("the child is gone", isFree);
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
