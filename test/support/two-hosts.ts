import { after, afterEach, before, beforeEach } from "node:test";
import type { ParamsInput, TransferView } from "../../src/control/index.js";
import { Hosts, type Host, type HostOptions } from "./hosts.js";
import { runSample } from "./sample-guest.js";

/** Two agents for the tests of one `describe`, from its first test to its last. */
export class TwoHosts {
  #hosts: Hosts | undefined;

  get hosts(): Hosts {
    if (this.#hosts === undefined) throw new Error("the hosts are there while tests run");
    return this.#hosts;
  }

  get a(): Host {
    return this.hosts.at(0);
  }

  get b(): Host {
    return this.hosts.at(1);
  }

  /**
   * To be called in a `describe`. With `web`, a sample guest of that name runs on the first host, which serves its HTTP at port 8080. After a
   * test that failed it is as `cleanAfterFailures` says.
   */
  static forTests(options: HostOptions & { web?: boolean } = {}): TwoHosts {
    const two = new TwoHosts();
    before(async () => {
      two.#hosts = await Hosts.start(2, options);
      if (options.web === true) await runSample(two.a, { name: "web", hostPort: 8080 });
    });
    cleanAfterFailures(() => two.hosts);
    after(() => two.#hosts?.stop());
    return two;
  }

  /** Forks guest web of the first host to a guest `child` of the second, which serves its HTTP at port 8090. Returns the transfer's number. */
  async forkWeb(params: Partial<ParamsInput<"guest.fork">> = {}): Promise<number> {
    const to = { name: "web", to: ["b"], names: ["child"], forwards: ["8090:80"] };
    const [forked] = (await this.a.call("guest.fork", { ...to, ...params })).transfers;
    if (forked?.state !== "running") throw new Error(`the child does not run: ${JSON.stringify(forked)}`);
    return forked.transfer;
  }
}

/**
 * To be called in a `describe` after the `before` that starts the hosts: after a test that failed, agents that have ended run again, and the
 * guests that came while it ran are gone, so that it is the only one to fail.
 */
export function cleanAfterFailures(hosts: () => Hosts): void {
  const kept = new Map<Host, ReadonlySet<string>>();
  beforeEach(async () => {
    kept.clear();
    for (const host of hosts().all.filter(({ isRunning }) => isRunning))
      kept.set(host, new Set([...(await host.guests()).values()].map(({ id }) => id)));
  });
  afterEach(async (context) => {
    // The types of this version do not have it.
    if ((context as { passed?: boolean }).passed !== false) return;
    for (const host of hosts().all.filter(({ isRunning }) => !isRunning)) {
      await host.end();
      await host.start();
    }
    // A parent that has ended is kept for its children on other hosts, so those end first.
    for (const [host, ids] of kept) await host.killGuests(ids);
    for (const [host, ids] of kept) await host.removeGuests(ids);
  });
}

/** A transfer as one of its hosts tells it. */
export async function transferOf(host: Host, transfer: number): Promise<TransferView> {
  return (await host.call("transfer.show", { transfer })).transfer;
}

/** Ends a guest and removes it. */
export async function removeGuest(host: Host, name: string): Promise<void> {
  await host.call("guest.kill", { name });
  await host.call("guest.remove", { name });
}
