import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock, silentLog, sleep, withDeadline } from "../../src/base/index.js";
import {
  RpcClient,
  type GuestView,
  type MethodName,
  type ParamsInput,
  type Result,
} from "../../src/control/index.js";
import { Authority } from "../../src/cli/pki/authority.js";
import { dial } from "../../src/lane/index.js";
import { filesIn } from "./certificates.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 30_000;
const CALL_DEADLINE_MS = 120_000;

/** What sets one agent of a test apart from the others. */
export interface HostDetails {
  /** Where it listens, other than on the loopback address it would get. */
  address?: string;
  /** Further addresses that lead to it, which its certificate then names as well. */
  alsoAt?: readonly string[];
  /** What its process is started with, such as `ip netns exec NAME`. */
  prefix?: readonly string[];
  environment?: Record<string, string>;
  /** Fields of its configuration file, over those of all. */
  configuration?: Record<string, unknown>;
}

/** What a test may want of its agents besides the defaults. */
export interface HostOptions {
  each?: (name: string) => HostDetails;
  /** Fields of each agent's configuration file, over those that set it apart from the others. */
  configuration?: Record<string, unknown>;
  /** Port all of them listen on, each at its own address. */
  port?: number;
  /** Where their directories lie, each in one of its own name; without it in new ones that `stop` removes. */
  roots?: { state: string; memory: string };
  /** Certificates of an authority of their own, in place of plain connections with a key. */
  tls?: boolean;
}

/** One agent with directories and an address of its own: a host, as far as Ramet can tell. */
export class Host {
  readonly name: string;
  readonly address: string;
  readonly url: string;
  readonly socket: string;
  readonly stateDirectory: string;
  readonly memoryDirectory: string;
  readonly #configurationFile: string;
  readonly #details: HostDetails;
  readonly #logFile: string;
  readonly #program: readonly string[];
  #process: ChildProcess | undefined;
  #client: RpcClient | undefined;

  constructor(options: {
    name: string;
    address: string;
    scheme: "wss://" | "ws://";
    port: number;
    scratch: string;
    memory: string;
    configuration: Record<string, unknown>;
    details: HostDetails;
  }) {
    this.#details = options.details;
    // What `scripts/build` made: an agent's threads are started without what reads TypeScript. Nor do they read the maps of sources, which would
    // be a sixth of what a start takes.
    this.#program = [join(ROOT, "dist/agent/main.js")];
    this.name = options.name;
    this.address = options.address;
    this.url = `${options.scheme}${options.address}:${options.port}`;
    this.stateDirectory = join(options.scratch, options.name);
    this.memoryDirectory = join(options.memory, options.name);
    this.socket = join(options.scratch, `${options.name}.sock`);
    this.#configurationFile = join(options.scratch, `${options.name}.json`);
    this.#logFile = join(options.scratch, `${options.name}.log`);
    const configuration = {
      name: this.name,
      stateDirectory: this.stateDirectory,
      memoryDirectory: this.memoryDirectory,
      socket: this.socket,
      listen: `${options.address}:${options.port}`,
      forwardAddress: options.address,
      logLevel: "debug",
      drainSeconds: 5,
      // Agents of tests are started all the time, and are not to be fast.
      rehearsalMs: 0,
      ...options.configuration,
    };
    writeFileSync(this.#configurationFile, JSON.stringify(configuration));
  }

  /** The process of the agent. */
  get pid(): number {
    assert.ok(this.#process?.pid !== undefined, `agent ${this.name} runs`);
    return this.#process.pid;
  }

  /** How the agent has ended by itself; undefined while it runs, and after `end`. */
  get ending(): string | undefined {
    const { exitCode = null, signalCode = null } = this.#process ?? {};
    return signalCode ?? (exitCode === null ? undefined : `exit code ${exitCode}`);
  }

  /** What the agent has logged. */
  get log(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, "utf8") : "";
  }

  /** Starts the agent, with flags besides those it has always, and waits until it is ready. */
  async start(flags: readonly string[] = []): Promise<void> {
    assert.equal(this.#process, undefined, `agent ${this.name} is started once at a time`);
    const { prefix = [], environment = {} } = this.#details;
    const agent = [process.execPath, ...this.#program];
    const [program = "", ...args] = [...prefix, ...agent, "--config", this.#configurationFile, ...flags];
    const env = { ...process.env, ...environment };
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], cwd: ROOT, env });
    this.#process = child;
    child.stderr.on("data", (chunk: Buffer) => writeFileSync(this.#logFile, chunk, { flag: "a" }));
    const ready = new Promise<void>((resolve, reject) => {
      child.stdout.on("data", (chunk: Buffer) => {
        if (chunk.toString().includes("is ready")) resolve();
      });
      child.once("exit", (code, signal) =>
        reject(new Error(`agent ${this.name} ended (${code ?? signal}):\n${this.log.slice(-2000)}`)),
      );
    });
    await withDeadline(realClock, START_DEADLINE_MS, `the start of agent ${this.name}`, ready);
    const connection = await dial({
      url: `unix:${this.socket}`,
      hello: { purpose: "control", role: "client" },
      clock: realClock,
      deadlineMs: START_DEADLINE_MS,
    });
    this.#client = new RpcClient(connection, { clock: realClock, log: silentLog });
  }

  /** Has a new agent take over from the one that runs, and waits for the end of that. Returns its exit code. */
  async takeOver(): Promise<number | undefined> {
    const before = this.#process;
    assert.ok(before !== undefined, `agent ${this.name} runs`);
    const exited = once(before, "exit");
    this.#client?.close();
    this.#process = undefined;
    await this.start(["--takeover"]);
    await withDeadline(realClock, STOP_DEADLINE_MS, `the end of agent ${this.name}`, exited);
    return before.exitCode ?? undefined;
  }

  get client(): RpcClient {
    assert.ok(this.#client !== undefined, `agent ${this.name} was started`);
    return this.#client;
  }

  /** Calls a method as a client does. */
  call<Name extends MethodName>(method: Name, params: ParamsInput<Name>): Promise<Result<Name>> {
    return this.client.call(method, params, { deadlineMs: CALL_DEADLINE_MS });
  }

  /** Its guests, by name. */
  async guests(): Promise<Map<string, GuestView>> {
    const { guests } = await this.call("guest.list", {});
    return new Map(guests.map((guest) => [guest.name, guest]));
  }

  /** Ends the agent with a signal and waits for its end; its guests run on. Returns the exit code. */
  async end(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | undefined> {
    const child = this.#process;
    this.#process = undefined;
    this.#client?.close();
    this.#client = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null)
      return child?.exitCode ?? undefined;
    const exited = once(child, "exit");
    child.kill(signal);
    await withDeadline(realClock, STOP_DEADLINE_MS, `the end of agent ${this.name}`, exited);
    return child.exitCode ?? undefined;
  }

  /** Whether the agent was started, and has not ended. */
  get isRunning(): boolean {
    return this.#client !== undefined && this.#client.end === undefined && this.ending === undefined;
  }

  /** Ends its guests, but for those whose id is among `kept`. Returns their names. */
  async killGuests(kept: ReadonlySet<string> = new Set()): Promise<string[]> {
    const others = [...(await this.guests()).values()].filter(({ id }) => !kept.has(id));
    for (const { name } of others) await this.call("guest.kill", { name }).catch(() => {});
    return others.map(({ name }) => name);
  }

  /** Ends and removes its guests, but for those whose id is among `kept`. Children on other hosts of one that goes must have ended, or be complete. */
  async removeGuests(kept: ReadonlySet<string> = new Set()): Promise<void> {
    const names = await this.killGuests(kept);
    // A transfer that lost its guest needs a moment to find that out.
    for (const name of names) await eventually(`guest ${name} is removed`, () => this.#tryRemove(name));
  }

  /** Ends every guest and transfer and the agent. */
  async clear(): Promise<void> {
    if (this.isRunning) await this.removeGuests();
    await this.end();
  }

  async #tryRemove(name: string): Promise<boolean> {
    if (!(await this.guests()).has(name)) return true;
    return this.call("guest.remove", { name }).then(
      () => true,
      () => false,
    );
  }
}

/** Agents on this machine, at 127.0.0.11 and up, named a, b, c…; they know each other by name. */
export class Hosts {
  readonly all: readonly Host[];
  readonly #scratch: string;
  readonly #memory: string;
  readonly #ownsRoots: boolean;

  private constructor(count: number, options: HostOptions) {
    this.#ownsRoots = options.roots === undefined;
    this.#scratch = options.roots?.state ?? mkdtempSync(join(tmpdir(), "rh-"));
    this.#memory = options.roots?.memory ?? mkdtempSync("/dev/shm/rh-");
    const port = options.port ?? 7170;
    const names = Array.from({ length: count }, (_, index) => String.fromCharCode(97 + index));
    const details = names.map((name) => options.each?.(name) ?? {});
    const scheme = options.tls === true ? "wss://" : "ws://";
    const transport = options.tls === true ? this.#certificates() : this.#plainWithKey();
    const addressOf = (index: number): string => details[index]?.address ?? `127.0.0.${11 + index}`;
    const peers = Object.fromEntries(
      names.map((name, index) => [name, `${scheme}${addressOf(index)}:${port}`]),
    );
    this.all = names.map((name, index) => {
      mkdirSync(join(this.#memory, name), { recursive: true });
      const others = Object.fromEntries(Object.entries(peers).filter(([peer]) => peer !== name));
      return new Host({
        name,
        address: addressOf(index),
        scheme,
        port,
        scratch: this.#scratch,
        memory: this.#memory,
        configuration: {
          peers: others,
          ...transport(name, [addressOf(index), ...(details[index]?.alsoAt ?? [])]),
          ...options.configuration,
          ...details[index]?.configuration,
        },
        details: details[index] ?? {},
      });
    });
  }

  /** Where `tls` was asked for: the directory of the authority that issued the agents' certificates. */
  get authorityDirectory(): string {
    return join(this.#scratch, "pki");
  }

  /** Each agent's part of the configuration. */
  #plainWithKey(): (name: string, addresses: string[]) => Record<string, unknown> {
    const keyFile = join(this.#scratch, "key");
    writeFileSync(keyFile, "9f".repeat(32), { mode: 0o600 });
    return () => ({ plain: true, keyFile });
  }

  #certificates(): (name: string, addresses: string[]) => Record<string, unknown> {
    const { authority } = Authority.create(this.authorityDirectory, {
      name: "Tests",
      days: 30,
      clock: realClock,
    });
    return (name, addresses) => {
      authority.issue({ name, roles: ["peer"], addresses, days: 30 }, { renew: false });
      return { tls: filesIn(authority.directoryOf(name)) };
    };
  }

  /** Starts `count` agents. */
  static async start(count: number, options: HostOptions = {}): Promise<Hosts> {
    const hosts = new Hosts(count, options);
    try {
      await Promise.all(hosts.all.map((host) => host.start()));
    } catch (error) {
      await hosts.stop().catch(() => {});
      throw error;
    }
    return hosts;
  }

  /** The host at a place, from 0. */
  at(index: number): Host {
    const host = this.all[index];
    assert.ok(host !== undefined, `there are ${this.all.length} hosts`);
    return host;
  }

  /** What the agents have logged at level error or worse, which a test that is happy should not see. */
  get problems(): string[] {
    return this.all.flatMap((host) =>
      host.log
        .split("\n")
        .filter((line) => /"level":(50|60)/.test(line))
        .map((line) => `${host.name}: ${line}`),
    );
  }

  /** Ends all guests and agents and asserts that nothing of them is left. */
  async stop(): Promise<void> {
    try {
      // A parent that has ended is kept for its children on other hosts, so those end first.
      for (const host of this.all) if (host.isRunning) await host.killGuests();
      for (const host of this.all) await host.clear();
      await eventually("the emulators are gone", () => emulatorsBelow(this.#scratch).length === 0);
      for (const host of this.all) {
        const left = readdirSync(host.memoryDirectory).filter((name) => name !== "lock");
        assert.deepEqual(left, [], `memory of host ${host.name} is gone`);
        const guests = join(host.stateDirectory, "guests");
        if (existsSync(guests))
          assert.deepEqual(readdirSync(guests), [], `guests' directories of host ${host.name} are gone`);
      }
    } finally {
      for (const pid of emulatorsBelow(this.#scratch)) process.kill(pid, "SIGKILL");
      for (const host of this.all) await host.end("SIGKILL");
      if (this.#ownsRoots) {
        rmSync(this.#memory, { recursive: true, force: true });
        rmSync(this.#scratch, { recursive: true, force: true });
      }
    }
  }
}

/** Waits until `isTrue` says so; fails naming `what` after `deadlineMs`. */
export async function eventually(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  deadlineMs = 30_000,
): Promise<void> {
  const untilUs = realClock.nowUs() + deadlineMs * 1000;
  while (!(await isTrue())) {
    assert.ok(realClock.nowUs() < untilUs, `within ${deadlineMs} ms: ${what}`);
    await sleep(realClock, 50);
  }
}

/** Processes whose command line names something below a directory, other than agents. */
export function emulatorsBelow(directory: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const text = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return text.startsWith("/") && text.includes("qemu-system") && text.includes(directory);
      } catch {
        return false;
      }
    });
}
