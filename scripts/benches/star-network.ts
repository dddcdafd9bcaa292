import { execFileSync } from "node:child_process";

const BRIDGE = "ramet-bench";
/** Where this machine is on the bridge, to speak with guests. */
const OWN_ADDRESS = "10.97.0.254";

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/**
 * Hosts that are namespaces, each on a link of its own to one switch; a link carries so much each way, and drops what is too much, as a real one does.
 *
 *     ramet-bench-1: up0 10.97.0.1 ══ ramet-bench-1 ┐
 *     ramet-bench-2: up0 10.97.0.2 ══ ramet-bench-2 ┴ bridge ramet-bench
 */
export class StarNetwork {
  readonly #count: number;

  constructor(hosts: number) {
    this.#count = hosts;
    this.close();
    try {
      run("ip", "link", "add", BRIDGE, "type", "bridge");
      run("ip", "addr", "add", `${OWN_ADDRESS}/24`, "dev", BRIDGE);
      run("ip", "link", "set", BRIDGE, "up");
      for (let index = 0; index < this.#count; index += 1) this.#addHost(index);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  address(index: number): string {
    return `10.97.0.${index + 1}`;
  }

  /** What runs a program on a host. */
  inside(index: number): string[] {
    return ["ip", "netns", "exec", nameOf(index)];
  }

  /** Bytes that have left a host by its link so far, all headers included. */
  sentBytes(index: number): number {
    const [program = "", ...args] = this.inside(index);
    return Number(run(program, ...args, "cat", "/sys/class/net/up0/statistics/tx_bytes"));
  }

  /** Has each link carry so many Mbit/s each way, and hold what a switch and a network card queue at that rate in 8 ms. */
  setRate(mbit: number): void {
    const shape = ["root", "tbf", "rate", `${mbit}mbit`, "burst", "256k", "limit", `${mbit * 1000}`];
    for (let index = 0; index < this.#count; index += 1) {
      const name = nameOf(index);
      run("tc", "-n", name, "qdisc", "replace", "dev", "up0", ...shape);
      run("tc", "qdisc", "replace", "dev", name, ...shape);
    }
  }

  /** Takes it down, with everything in it; also what an earlier run has left. */
  close(): void {
    for (let index = 0; index < this.#count; index += 1) tryTo("ip", "netns", "del", nameOf(index));
    tryTo("ip", "link", "del", BRIDGE);
  }

  #addHost(index: number): void {
    const name = nameOf(index);
    run("ip", "netns", "add", name);
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", name);
    run("ip", "link", "set", name, "master", BRIDGE, "up");
    run("ip", "-n", name, "link", "set", "lo", "up");
    run("ip", "-n", name, "addr", "add", `${this.address(index)}/24`, "dev", "up0");
    run("ip", "-n", name, "link", "set", "up0", "up");
  }
}

function nameOf(index: number): string {
  return `${BRIDGE}-${index + 1}`;
}

function tryTo(program: string, ...args: string[]): void {
  try {
    run(program, ...args);
  } catch {
    // It was never made.
  }
}
