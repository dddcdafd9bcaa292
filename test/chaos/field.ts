import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock, sleep } from "../../src/base/index.js";
import type { TransferView } from "../../src/control/index.js";
import { Hosts, type Host } from "../support/hosts.js";
import { runSample } from "../support/sample-guest.js";
import { Proxy } from "./proxy.js";
import { Subject } from "./subject.js";

const NAMES = ["a", "b", "c"] as const;
const AGENT_PORT = 7180;
const GUEST_PORTS = { nursery: 8599, first: 8600, count: 300 };
/** Room for a guest in each role there is at a time, and one waiting emulator. */
const MEMORY_MIB = 768;
const DISK_MIB = 64;
const GUEST_MIB = 128;
const STAMPED_MIB = 24;
const WRITE_MIB_PER_S = 8;
const CHECK_MIB_PER_S = 8;

type TransferListener = (host: Host, view: TransferView) => void;

/**
 * Three hosts on this machine with a proxy in front of each, small file systems of their own for memory and state, and a guest that others
 * are forked from. It is used by one injection after the other for as long as nothing is lost on it.
 *
 *     everyone else ──▶ proxy 127.0.0.41 ──▶ agent a 127.0.0.11      and so on for b and c
 */
export class Field {
  readonly hosts: Hosts;
  readonly #proxies: ReadonlyMap<Host, Proxy>;
  readonly #roots: { state: string; memory: string };
  readonly #listeners = new Set<TransferListener>();
  readonly #watched = new WeakSet<object>();
  /** Transfers of operations that are over. */
  readonly seen = new Set<number>();
  #nextPort = 0;
  /** Where the other guests come from. */
  nursery!: Subject;

  private constructor(hosts: Hosts, proxies: readonly Proxy[], roots: { state: string; memory: string }) {
    this.hosts = hosts;
    this.#proxies = new Map(hosts.all.map((host, index) => [host, proxies[index] as Proxy]));
    this.#roots = roots;
  }

  static async open(options: { logLevel?: string } = {}): Promise<Field> {
    const roots = makeRoots();
    const proxies: Proxy[] = [];
    try {
      for (const index of NAMES.keys())
        proxies.push(
          await Proxy.open({ listen: { host: proxyAddress(index), port: AGENT_PORT }, to: agentAt(index) }),
        );
      const urls = Object.fromEntries(NAMES.map((name, index) => [name, proxyUrl(index)]));
      const hosts = await Hosts.start(NAMES.length, {
        port: AGENT_PORT,
        roots,
        tls: true,
        configuration: {
          logLevel: options.logLevel ?? "info",
          drainSeconds: 2,
          limits: { memoryReserveMib: 8, copiesMib: 16 },
        },
        each: (name) => ({
          alsoAt: [proxyAddress(NAMES.findIndex((own) => own === name))],
          configuration: {
            advertise: urls[name],
            peers: Object.fromEntries(Object.entries(urls).filter(([peer]) => peer !== name)),
          },
        }),
      });
      const field = new Field(hosts, proxies, roots);
      for (const host of hosts.all) await field.watch(host);
      await field.#bootNursery();
      return field;
    } catch (error) {
      await Promise.all(proxies.map((proxy) => proxy.close()));
      removeRoots(roots);
      throw error;
    }
  }

  /** What the command lines of this field's emulators name. */
  get directory(): string {
    return this.#roots.state;
  }

  proxyOf(host: Host): Proxy {
    const proxy = this.#proxies.get(host);
    if (proxy === undefined) throw new Error(`host ${host.name} is not of this field`);
    return proxy;
  }

  get proxies(): Proxy[] {
    return [...this.#proxies.values()];
  }

  hostNamed(name: string): Host {
    const host = this.hosts.all.find((candidate) => candidate.name === name);
    if (host === undefined) throw new Error(`there is no host ${name}`);
    return host;
  }

  /** Hears of every change of a transfer, from whatever agent, until the returned function is called. */
  onTransfer(listener: TransferListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Listens to an agent's events; again after each of its starts. */
  async watch(host: Host): Promise<void> {
    const { client } = host;
    if (this.#watched.has(client)) return;
    this.#watched.add(client);
    client.onEvent((event) => {
      if (event.event !== "transfer") return;
      for (const listener of this.#listeners) listener(host, event.data.transfer);
    });
    await client.call("events.subscribe", { topics: ["transfer"] }, { deadlineMs: 10_000 });
  }

  /** Starts an agent again that was ended, and listens to it. */
  async restart(host: Host): Promise<void> {
    await host.start();
    await this.watch(host);
  }

  /** A port that no guest has had for a long while. */
  port(): number {
    this.#nextPort = (this.#nextPort + 1) % GUEST_PORTS.count;
    return GUEST_PORTS.first + this.#nextPort;
  }

  /** A new guest on a host, forked from the nursery with nothing in the way. */
  async subjectOn(host: Host, name: string): Promise<Subject> {
    const port = this.port();
    const source = this.nursery.host;
    const { transfers } = await source.call("guest.fork", {
      name: this.nursery.name,
      to: [host.name],
      names: [name],
      forwards: [`${port}:80`],
    });
    const transfer = transfers[0];
    if (transfer === undefined || transfer.state !== "running")
      throw new Error(`no guest ${name} could be had: ${transfer?.error?.message ?? "no outcome"}`);
    this.seen.add(transfer.transfer);
    const subject = new Subject({ name, host, port });
    for (;;) {
      const { transfer: view } = await source.call("transfer.show", { transfer: transfer.transfer });
      if (view.phase === "complete") break;
      if (view.phase === "failed") throw new Error(`no guest ${name} could be had: ${view.message ?? ""}`);
      await sleep(realClock, 30);
    }
    await subject.look();
    return subject;
  }

  /** Ends everything. Throws when something of it is left, which is ended all the same. */
  async close(): Promise<void> {
    for (const proxy of this.proxies) proxy.clear();
    try {
      await this.hosts.stop();
    } finally {
      await Promise.all(this.proxies.map((proxy) => proxy.close()));
      removeRoots(this.#roots);
    }
  }

  async #bootNursery(): Promise<void> {
    const port = GUEST_PORTS.nursery;
    const host = this.hosts.at(0);
    await runSample(host, { name: "nursery", memoryMiB: GUEST_MIB, hostPort: port });
    this.nursery = new Subject({ name: "nursery", host, port });
    const answer = await this.nursery.ask<{ checking?: boolean; error?: string }>(
      `/stamp/start?mib=${STAMPED_MIB}&rate=${WRITE_MIB_PER_S}&check=${CHECK_MIB_PER_S}&fill=page`,
    );
    if (answer.checking !== true) throw new Error(`the guest does not check itself: ${answer.error ?? ""}`);
    await this.nursery.look();
  }
}

function proxyAddress(index: number): string {
  return `127.0.0.${41 + index}`;
}

function proxyUrl(index: number): string {
  return `wss://${proxyAddress(index)}:${AGENT_PORT}`;
}

function agentAt(index: number): { host: string; port: number } {
  return { host: `127.0.0.${11 + index}`, port: AGENT_PORT };
}

/** Directories for the hosts' state and memory, each a file system that can be filled without harm to anybody else. */
function makeRoots(): { state: string; memory: string } {
  const roots = {
    state: mkdtempSync(join(tmpdir(), "rc-")),
    memory: mkdtempSync("/dev/shm/rc-"),
  };
  for (const name of NAMES) {
    for (const [root, sizeMib] of [
      [roots.state, DISK_MIB],
      [roots.memory, MEMORY_MIB],
    ] as const) {
      const directory = join(root, name);
      mkdirSync(directory);
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeMib}m,mode=0755`, "ramet-chaos", directory]);
    }
  }
  return roots;
}

function removeRoots(roots: { state: string; memory: string }): void {
  for (const root of [roots.state, roots.memory]) {
    for (const name of NAMES) {
      try {
        execFileSync("umount", [join(root, name)], { stdio: "ignore" });
      } catch {
        // It was never mounted.
      }
    }
    rmSync(root, { recursive: true, force: true });
  }
}
