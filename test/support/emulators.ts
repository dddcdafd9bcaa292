/** Real emulators for tests of the guest room alone: no agent, memory copied while the parent is stopped. */
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock, silentLog, sleep } from "../../src/base/index.js";
import {
  adoptEmulator,
  parseGuestConfig,
  startEmulator,
  type Architecture,
  type Emulator,
  type EmulatorExit,
  type EmulatorPlace,
  type StartOptions,
} from "../../src/guest/index.js";
import { sampleGuest } from "./sample-guest.js";

const MACHINE = { x86_64: "pc-q35-7.2", aarch64: "virt-7.2" } as const;
const BOOT_DEADLINE_MS = 120_000;
const REQUEST_DEADLINE_MS = 30_000;

export interface Started {
  emulator: Emulator;
  port: number;
  place: EmulatorPlace;
  exited: Promise<EmulatorExit>;
}

export interface LabOptions {
  name: string;
  architecture?: Architecture;
  cpus?: number;
  machine?: string;
  vmgenid?: string;
  network?: object;
  incoming?: boolean;
  start?: Partial<StartOptions>;
}

/** Everything a test starts, and its end. */
export class EmulatorLab {
  readonly directory = mkdtempSync(join(tmpdir(), "ramet-guest-"));
  readonly memory = mkdtempSync("/dev/shm/ramet-guest-test-");
  readonly #started: Started[] = [];

  async start(options: LabOptions): Promise<Started> {
    const port = await freePort();
    const place = this.place(options, port);
    const start = { ...place, incoming: options.incoming ?? false, ...options.start };
    const emulator = await startEmulator(start);
    return this.#keep({ emulator, port, place });
  }

  async adopt(started: Started): Promise<Started> {
    const emulator = await adoptEmulator(started.place);
    assert.ok(emulator !== undefined, "the emulator is found again");
    return this.#keep({ emulator, port: started.port, place: started.place });
  }

  place(options: LabOptions, port: number): EmulatorPlace {
    const architecture = options.architecture ?? "x86_64";
    const forwards = [{ hostPort: port, guestPort: 80 }];
    const config = parseGuestConfig({
      id: randomUUID(),
      name: options.name,
      architecture,
      machine: options.machine ?? MACHINE[architecture],
      memoryBytes: 256 * 1024 * 1024,
      cpus: options.cpus ?? 1,
      ...sampleGuest(architecture),
      network: options.network ?? { mode: "user", mac: "52:54:00:12:34:56", forwards },
      ...(architecture === "x86_64" ? { vmgenid: options.vmgenid ?? randomUUID() } : {}),
    });
    const directory = join(this.directory, options.name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return { config, directory, ramPath: join(this.memory, options.name), clock: realClock, log: silentLog };
  }

  /** Stops the parent, saves it, copies its memory to the child, lets the parent run on, and loads the child. */
  async fork(parent: Started, child: Started): Promise<Uint8Array> {
    await parent.emulator.prepareDeviceState();
    await parent.emulator.stop();
    const state = (await parent.emulator.saveDeviceState({ handOver: false })).compose();
    const [from, to] = [parent.emulator.ramPath, child.emulator.ramPath];
    // Into the same file, which the child's emulator has mapped already.
    execFileSync("dd", [`if=${from}`, `of=${to}`, "bs=64K", "conv=notrunc,sparse", "status=none"]);
    await parent.emulator.resume();
    await child.emulator.loadDeviceState(state);
    return state;
  }

  /** Ends what still runs and checks that nothing is left. */
  async end(): Promise<void> {
    for (const { emulator, place } of this.#started.splice(0)) {
      // One that was let go of has a successor here, which ends the process.
      if (existsSync(`/proc/${emulator.pid}`)) process.kill(emulator.pid, "SIGKILL");
      while (isRunning(emulator.pid)) await sleep(realClock, 10);
      emulator.detach();
      assert.ok(!existsSync(`${place.ramPath}.device-state`), "no saved state is left");
    }
    rmSync(this.directory, { recursive: true, force: true });
    rmSync(this.memory, { recursive: true, force: true });
  }

  /** Processes that have one of this lab's directories on their command line. */
  leftovers(): string[] {
    return readdirSync("/proc").filter((entry) => {
      try {
        return /^\d+$/.test(entry) && readFileSync(`/proc/${entry}/cmdline`, "utf8").includes(this.directory);
      } catch {
        return false;
      }
    });
  }

  #keep(options: Omit<Started, "exited">): Started {
    const exited = new Promise<EmulatorExit>((resolve) => options.emulator.onExit(resolve));
    const started = { ...options, exited };
    this.#started.push(started);
    return started;
  }
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Asks a sample guest for a page. */
export async function ask<T = Record<string, unknown>>(guest: { port: number }, path: string): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${guest.port}${path}`, {
    headers: { connection: "close" },
    signal: AbortSignal.timeout(REQUEST_DEADLINE_MS),
  });
  return (await response.json()) as T;
}

/** Waits until a guest's console has said how often it was ready. */
export async function whenBooted(guest: Started, options: { boots: number } = { boots: 1 }): Promise<void> {
  const untilUs = realClock.nowUs() + BOOT_DEADLINE_MS * 1000;
  const log = join(guest.place.directory, "console.log");
  for (;;) {
    const text = existsSync(log) ? readFileSync(log, "utf8") : "";
    if (text.split("ramet-guest ready").length > options.boots) return;
    assert.ok(realClock.nowUs() < untilUs, `the guest did not boot; its console says: ${text.slice(-500)}`);
    await sleep(realClock, 50);
  }
}
