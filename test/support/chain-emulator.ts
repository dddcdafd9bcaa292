/** A real emulator with a guest's disks and no guest: the processors never run, and what a guest would do to its disks a test does over NBD. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { deferred, realClock, sleep } from "../../src/base/index.js";
import { EmulatorDisks, topNodeOf, type EmulatorExit, type GuestDisk } from "../../src/guest/index.js";
import { diskArguments } from "../../src/guest/disks.js";
import { QmpClient } from "../../src/guest/qmp.js";
import { NbdClient } from "./nbd-client.js";

const run = promisify(execFile);
const START_MS = 20_000;
const EXPORT = "disk0";

/** Counts what an agent does to the world, and ends it before one of its acts. */
export class Mortal {
  acts = 0;
  /** Before which act it ends. */
  dieAt = Infinity;
  onDeath: () => Promise<void> | void = () => {};
  #isDead = false;
  readonly names: string[] = [];

  get isDead(): boolean {
    return this.#isDead;
  }

  die(): void {
    this.#isDead = true;
  }

  /** An agent that is dead comes no further. */
  async act<T>(name: string, body: () => Promise<T>): Promise<T> {
    if (!this.#isDead && this.acts++ === this.dieAt) await this.onDeath();
    this.names.push(name);
    if (this.#isDead) return new Promise<T>(() => {});
    const result = await body();
    return this.#isDead ? new Promise<T>(() => {}) : result;
  }

  /** An object whose asynchronous methods are acts. */
  wrap<T extends object>(target: T, names: readonly (keyof T & string)[]): T {
    return new Proxy(target, {
      get: (_, key) => {
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== "function") return value;
        const method = value.bind(target) as (...values: unknown[]) => Promise<unknown>;
        if (!(names as readonly (string | symbol)[]).includes(key)) return method;
        return (...values: unknown[]) => this.act(String(key), () => method(...values));
      },
    });
  }
}

export class ChainEmulator {
  readonly #process: ChildProcess;
  readonly #directory: string;
  readonly #exit = deferred<EmulatorExit>();
  nbd!: NbdClient;
  isGone = false;

  private constructor(process: ChildProcess, directory: string) {
    this.#process = process;
    this.#directory = directory;
    process.on("exit", (code, signal) => {
      this.isGone = true;
      const cause = signal === "SIGKILL" ? "crashed" : "guest";
      this.#exit.resolve({ cause, expected: cause === "guest", lastLog: `${code} ${signal}` });
    });
  }

  get exited(): Promise<EmulatorExit> {
    return this.#exit.promise;
  }

  /** @param binary an emulator and where its data lies, other than the installed one. */
  static async start(
    directory: string,
    disks: readonly GuestDisk[],
    {
      binary = "qemu-system-x86_64",
      data = [],
    }: { binary?: string | undefined; data?: readonly string[] } = {},
  ): Promise<ChainEmulator> {
    const shared = diskArguments(disks, "disable-modern=on,share-rw=on");
    const monitors = ["agent", "guest"].flatMap((name) => [
      "-qmp",
      `unix:${join(directory, name)},server=on,wait=off`,
    ]);
    const options = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "16"];
    const machine = ["-machine", "pc-q35-7.2", "-accel", "tcg", ...data.flatMap((path) => ["-L", path])];
    const process = spawn(binary, [...options, ...machine, ...monitors, ...shared], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    const emulator = new ChainEmulator(process, directory);
    const guest = await emulator.#monitor("guest");
    const path = join(directory, "nbd");
    const addr = { type: "unix", data: { path } };
    await guest.execute("nbd-server-start", { addr });
    const node = topNodeOf(disks[0] as GuestDisk);
    await guest.execute("block-export-add", {
      type: "nbd",
      id: EXPORT,
      name: EXPORT,
      "node-name": node,
      writable: true,
    });
    guest.close();
    emulator.nbd = await NbdClient.connect(path, EXPORT);
    return emulator;
  }

  /** A connection of an agent's; there is one at a time. */
  connect(): Promise<QmpClient> {
    return this.#monitor("agent");
  }

  async kill(): Promise<void> {
    if (this.isGone) return;
    const gone = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await gone;
    this.nbd.close();
  }

  /** Ends it as a guest that switches itself off. */
  async quit(qmp: QmpClient): Promise<void> {
    const gone = once(this.#process, "exit");
    await qmp.execute("quit").catch(() => {});
    await gone;
    this.nbd.close();
  }

  async #monitor(name: string): Promise<QmpClient> {
    const path = join(this.#directory, name);
    const untilUs = realClock.nowUs() + START_MS * 1000;
    while (!existsSync(path) && realClock.nowUs() < untilUs) await sleep(realClock, 10);
    for (;;) {
      try {
        return await QmpClient.connect({
          path,
          clock: realClock,
          deadlineMs: 5000,
          onEvent() {},
          onEnd() {},
        });
      } catch (error) {
        if (this.isGone || realClock.nowUs() > untilUs) throw error;
        await sleep(realClock, 10);
      }
    }
  }
}

/** What is done to the disks as a guest would. */
export interface GuestsHand {
  readonly isPaused: boolean;
  /** Nothing is on its way when this resolves. */
  pause(): Promise<void>;
  goOn(): void;
}

/** What an agent has of such an emulator. */
export class AgentsEmulator {
  readonly disks: EmulatorDisks;
  readonly pid = 1;
  readonly version = "7.2";
  readonly #qmp: QmpClient;
  readonly #mortal: Mortal;
  readonly #guest: GuestsHand;

  constructor(qmp: QmpClient, mortal: Mortal, guest: GuestsHand) {
    this.#qmp = qmp;
    this.#mortal = mortal;
    this.#guest = guest;
    this.disks = new EmulatorDisks((command, args, deadlineMs) =>
      mortal.act(command, () => qmp.execute(command, args, deadlineMs === undefined ? {} : { deadlineMs })),
    );
  }

  async status(): Promise<string> {
    await this.#mortal.act("status", () => this.#qmp.execute("query-status"));
    return this.#guest.isPaused ? "paused" : "running";
  }

  async stop(): Promise<{ stoppedAtUs: number }> {
    await this.#mortal.act("stop", async () => {
      await this.#guest.pause();
      await this.#qmp.execute("stop");
    });
    const freeze = this.disks.takePending();
    if (freeze !== undefined)
      await this.#mortal.act(freeze.command, () => this.#qmp.execute(freeze.command, freeze.args));
    return { stoppedAtUs: 0 };
  }

  async resume(): Promise<{ resumedAtUs: number }> {
    await this.#mortal.act("resume", async () => this.#guest.goOn());
    return { resumedAtUs: 0 };
  }

  onGuestEvent(): void {}
}

/** What a guest reads of a chain that nobody has open. */
export async function contentOf(disk: GuestDisk, scratch: string): Promise<string> {
  let node: object | null = null;
  for (const { format, path } of disk.chain.toReversed()) {
    const file = { driver: "file", filename: path };
    node = format === "raw" ? { driver: "raw", file } : { driver: "qcow2", file, backing: node };
  }
  const to = join(scratch, "content.raw");
  await run("qemu-img", ["convert", "-O", "raw", `json:${JSON.stringify(node)}`, to]);
  return to;
}
