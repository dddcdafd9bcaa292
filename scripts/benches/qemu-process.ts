import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { realClock, withDeadline } from "../../src/base/index.js";
import { QmpClient, type QmpEvent } from "../../src/guest/qmp.js";
import { eventually } from "../../test/support/hosts.js";
import { sampleGuest } from "../../test/support/sample-guest.js";
import { SampleGuest } from "./sample.js";

const START_DEADLINE_MS = 20_000;
const COMMAND_DEADLINE_MS = 60_000;
const END_DEADLINE_MS = 20_000;
const ADDRESS = "127.0.0.1";

/** What belongs to one process and not to the guest; the sandbox would keep the emulator from writing to a program. */
const OF_THE_PROCESS = new Set(
  ["pidfile", "add-fd", "chardev", "serial", "qmp", "netdev", "incoming", "sandbox", "L"].map(
    (name) => `-${name}`,
  ),
);
const WITHOUT_VALUE = new Set(["-nodefaults", "-no-user-config", "-S"]);

/**
 * The arguments with which the emulator runs the same guest by itself: those of an emulator of Ramet, with memory that is nobody
 * else's, sockets and port forwards of its own, and without what Ramet needs to watch over it.
 */
export function argumentsLike(
  ramet: readonly string[],
  own: { directory: string; hostPort: number; incoming: boolean },
): string[] {
  const { kernel, initrd } = sampleGuest();
  const kept: string[] = [];
  for (let index = 0; index < ramet.length; index += 1) {
    const name = ramet[index] ?? "";
    if (name === "-S") continue;
    if (WITHOUT_VALUE.has(name)) {
      kept.push(name);
      continue;
    }
    index += 1;
    const value = ramet[index] ?? "";
    if (OF_THE_PROCESS.has(name)) continue;
    if (name === "-kernel") kept.push(name, kernel);
    else if (name === "-initrd") kept.push(name, initrd);
    else if (value.startsWith("memory-backend-file,")) kept.push(name, privateMemory(value));
    else kept.push(name, value);
  }
  kept.push("-serial", `file:${join(own.directory, `console-${own.hostPort}`)}`);
  kept.push("-netdev", `user,id=net0,hostfwd=tcp:${ADDRESS}:${own.hostPort}-:80`);
  kept.push("-qmp", `unix:${join(own.directory, `qmp-${own.hostPort}`)},server=on,wait=off`);
  if (own.incoming) kept.push("-incoming", "defer");
  return kept;
}

function privateMemory(file: string): string {
  const fields = file.split(",").filter((field) => /^(?:id|size|dump|merge)=/.test(field));
  return ["memory-backend-ram", ...fields].join(",");
}

/** One process of the distribution's emulator. Whoever starts it ends it. */
export class QemuProcess {
  readonly hostPort: number;
  readonly guest: SampleGuest;
  readonly #child: ChildProcess;
  readonly #events: QmpEvent[] = [];
  #qmp: QmpClient | undefined;

  private constructor(child: ChildProcess, hostPort: number) {
    this.#child = child;
    this.hostPort = hostPort;
    this.guest = new SampleGuest(`http://${ADDRESS}:${hostPort}`);
  }

  /** Starts it; it runs its guest at once, or waits for one. */
  static async start(
    ramet: readonly string[],
    own: { directory: string; hostPort: number; incoming: boolean },
  ): Promise<QemuProcess> {
    const logPath = join(own.directory, `log-${own.hostPort}`);
    const log = openSync(logPath, "w");
    rmSync(join(own.directory, `qmp-${own.hostPort}`), { force: true });
    const child = spawn("qemu-system-x86_64", argumentsLike(ramet, own), { stdio: ["ignore", log, log] });
    closeSync(log);
    const process = new QemuProcess(child, own.hostPort);
    try {
      await once(child, "spawn");
      await process.#connect(join(own.directory, `qmp-${own.hostPort}`));
      return process;
    } catch (error) {
      await process.end();
      throw new Error(`the emulator did not start: ${readFileSync(logPath, "utf8")}`, { cause: error });
    }
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error("the emulator did not start");
    return this.#child.pid;
  }

  execute<T>(command: string, args: object = {}): Promise<T> {
    if (this.#qmp === undefined) throw new Error("the emulator is not connected");
    return this.#qmp.execute(command, args, { deadlineMs: COMMAND_DEADLINE_MS }) as Promise<T>;
  }

  /** The emulator's own time, in µs since 1970, of the last event of that name; waits for one. */
  async timeOf(event: string): Promise<number> {
    await eventually(`the emulator says ${event}`, () => this.#last(event) !== undefined);
    return this.#last(event)?.atUs ?? NaN;
  }

  /** Forgets what it has said so far. */
  forgetEvents(): void {
    this.#events.length = 0;
  }

  async end(): Promise<void> {
    this.#qmp?.close();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined)
      return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await withDeadline(realClock, END_DEADLINE_MS, "the end of an emulator", exited);
  }

  #last(event: string): QmpEvent | undefined {
    return this.#events.findLast(({ name }) => name === event);
  }

  async #connect(path: string): Promise<void> {
    const listens = (): boolean => existsSync(path) || this.#child.exitCode !== null;
    await eventually("the emulator listens", listens, START_DEADLINE_MS);
    this.#qmp = await QmpClient.connect({
      path,
      clock: realClock,
      deadlineMs: START_DEADLINE_MS,
      onEvent: (event) => this.#events.push(event),
      onEnd: () => {},
    });
  }
}
