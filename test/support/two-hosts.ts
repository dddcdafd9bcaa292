import { after, before } from "node:test";
import type { TransferView } from "../../src/control/index.js";
import { Hosts, type Host } from "./hosts.js";
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

  /** To be called in a `describe`. With `web`, a sample guest of that name runs on the first host, which serves its HTTP at port 8080. */
  static forTests(options: { web?: boolean } = {}): TwoHosts {
    const two = new TwoHosts();
    before(async () => {
      two.#hosts = await Hosts.start(2);
      if (options.web === true) await runSample(two.a, { name: "web", hostPort: 8080 });
    });
    after(() => two.#hosts?.stop());
    return two;
  }
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
