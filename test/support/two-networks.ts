import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { join } from "node:path";
import { eventually } from "./hosts.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const BRIDGE = "br0";
const CABLE_ENDS = ["ra", "rb"] as const;
/** A bridge has the lowest address of its ports: these are above nearly all that the kernel makes up. */
const CABLE_ADDRESSES = ["fa:00:00:00:00:0a", "fa:00:00:00:00:0b"] as const;

function ip(...args: string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "pipe", "pipe"] });
}

/**
 * Two hosts of one network: a namespace each, with a bridge of the same name, and a cable between the bridges.
 *
 *     ramet-test-a: br0 10.98.0.1 ── ra ═══ rb ── br0 10.98.0.2 :ramet-test-b
 */
export class TwoNetworks {
  readonly names = ["ramet-test-a", "ramet-test-b"] as const;
  readonly addresses = ["10.98.0.1", "10.98.0.2"] as const;
  readonly bridge = BRIDGE;

  constructor() {
    try {
      for (const name of this.names) ip("netns", "add", name);
      ip(
        "link",
        "add",
        "ra",
        "netns",
        this.names[0],
        "type",
        "veth",
        "peer",
        "name",
        "rb",
        "netns",
        this.names[1],
      );
      for (const [index, port] of CABLE_ENDS.entries()) {
        const inside = ["-n", this.names[index] as string];
        ip(...inside, "link", "set", "lo", "up");
        ip(...inside, "link", "add", BRIDGE, "type", "bridge");
        ip(...inside, "addr", "add", `${this.addresses[index]}/24`, "dev", BRIDGE);
        const address = CABLE_ADDRESSES[index] as string;
        ip(...inside, "link", "set", port, "address", address, "master", BRIDGE, "up");
        ip(...inside, "link", "set", BRIDGE, "up");
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** What runs a program on the host at a place, 0 or 1. */
  inside(index: 0 | 1): string[] {
    return ["ip", "netns", "exec", this.names[index]];
  }

  /** The devices that are ports of a host's bridge, but for the cable. */
  guestsOn(index: 0 | 1): string[] {
    const args = ["-n", this.names[index], "-j", "link", "show", "master", this.bridge];
    const devices = JSON.parse(execFileSync("ip", args, { encoding: "utf8" })) as { ifname: string }[];
    return devices.map(({ ifname }) => ifname).filter((name) => name !== CABLE_ENDS[index]);
  }

  /** The hardware addresses of both hosts on their bridges. */
  bridgeAddresses(): string[] {
    return this.names.map((name) => {
      const shown = execFileSync("ip", ["-n", name, "-j", "link", "show", BRIDGE], { encoding: "utf8" });
      const [link] = JSON.parse(shown) as { address: string }[];
      return link?.address ?? "";
    });
  }

  /** Takes both down, with everything in them. */
  close(): void {
    for (const name of this.names) {
      try {
        ip("netns", "del", name);
      } catch {
        // It was never made.
      }
    }
  }
}

/** What a client saw that asked a guest again and again over connections it keeps. */
export interface TalkReport {
  answers: number;
  connections: number;
  errors: number;
}

/** The quickstart's client, run somewhere else. */
export class Talk {
  readonly #process: ChildProcess;
  readonly #kill = (): boolean => this.#process.kill("SIGKILL");
  #output = "";

  constructor(options: { prefix: string[]; url: string }) {
    const client = join(ROOT, "scripts/quickstart-parts/guest-client.ts");
    const [program = "", ...args] = [
      ...options.prefix,
      process.execPath,
      "--import",
      "tsx",
      client,
      "talk",
      options.url,
    ];
    this.#process = spawn(program, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
    this.#process.stdout?.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
    // A test that fails before the end of the talk does not wait for that.
    process.once("exit", this.#kill);
    this.#process.once("exit", () => process.off("exit", this.#kill));
    this.#process.unref();
    (this.#process.stdout as Socket).unref();
  }

  /** What it has printed. */
  get said(): string {
    return this.#output;
  }

  /** Waits until it has been answered for the first time. */
  async begin(): Promise<void> {
    await eventually("the guest answers the client", () => this.#output.includes("the first answer"));
  }

  /** Ends it and tells what it saw. */
  async end(): Promise<TalkReport> {
    const closed = once(this.#process, "close");
    this.#process.ref();
    (this.#process.stdout as Socket).ref();
    this.#process.kill("SIGTERM");
    await closed;
    const [answers, connections, errors] =
      /(\d+) answers over (\d+) TCP connections?, (\d+) errors/.exec(this.#output)?.slice(1) ?? [];
    return { answers: Number(answers), connections: Number(connections), errors: Number(errors) };
  }
}
