import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { realClock, sleep } from "../../src/base/index.js";
import { emulatorSeconds } from "./processor-time.js";
import { QemuProcess } from "./qemu-process.js";
import type { SampleGuest } from "./sample.js";

/** Ways in which the emulator moves a guest by itself. */
export const MODES = ["precopy", "postcopy", "preempt"] as const;
export type Mode = (typeof MODES)[number];

const HOST_PORTS = [8580, 8581] as const;
const MIGRATION_PORT = 8590;
const POLL_MS = 10;
const DEADLINE_MS = 180_000;

/** No limit to speak of, in bytes a second. */
const BANDWIDTH = 1e12;
/** The emulator's own default, in ms: pre-copy stops the guest when the rest can be sent in that time. */
export const DOWNTIME_LIMIT_MS = 300;

const CAPABILITIES: Record<Mode, readonly string[]> = {
  precopy: [],
  postcopy: ["postcopy-ram"],
  preempt: ["postcopy-ram", "postcopy-preempt"],
};
const ALL_CAPABILITIES = [...CAPABILITIES.preempt, "background-snapshot"];

interface MigrationStatus {
  status?: string;
  "total-time"?: number;
  "error-desc"?: string;
  ram?: { transferred: number; "dirty-sync-count": number };
}

/** How one migration of the emulator's own went. */
export interface RivalMigration {
  /** As the emulator counts it, from the command to the end. */
  totalMs: number;
  /** From the STOP of the one emulator to the RESUME of the other. */
  downtimeMs: number;
  /** Processor time of both emulators without their guest's processors, from the command to the end. */
  cpuSeconds: number;
  transferredBytes: number;
  /** Times all memory was looked through. */
  rounds: number;
}

/** The same guest as one of Ramet's, run and moved by the emulator alone. */
export class Rival {
  /** On tmpfs, and removed in the end. */
  readonly directory: string;
  readonly #arguments: readonly string[];
  #process: QemuProcess;

  private constructor(directory: string, ramet: readonly string[], process: QemuProcess) {
    this.directory = directory;
    this.#arguments = ramet;
    this.#process = process;
  }

  /**
   * Boots a guest, lets it be used, and ends it.
   * @param pid an emulator of Ramet, that runs the guest it is to be like.
   */
  static async use(pid: number, use: (rival: Rival) => Promise<void>): Promise<void> {
    const ramet = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(1, -1);
    const directory = mkdtempSync("/dev/shm/rb-");
    try {
      const rival = new Rival(directory, ramet, await QemuProcess.start(ramet, firstIn(directory)));
      try {
        await rival.guest.whenReady();
        await use(rival);
      } finally {
        await rival.process.end();
      }
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  get guest(): SampleGuest {
    return this.#process.guest;
  }

  get process(): QemuProcess {
    return this.#process;
  }

  /** Keeps the guest from using a processor while the other one is measured. */
  async stop(): Promise<void> {
    await this.#process.execute("stop");
  }

  async resume(): Promise<void> {
    await this.#process.execute("cont");
  }

  /** Boots the guest anew, when the one there was is lost. */
  async reboot(): Promise<void> {
    await this.#process.end();
    this.#process = await QemuProcess.start(this.#arguments, firstIn(this.directory));
    await this.guest.whenReady();
  }

  /** Starts another emulator that waits for the guest. The caller ends it, or makes it `this.process`. */
  async startOther(): Promise<QemuProcess> {
    const hostPort = HOST_PORTS.find((port) => port !== this.#process.hostPort) ?? HOST_PORTS[0];
    return QemuProcess.start(this.#arguments, { directory: this.directory, hostPort, incoming: true });
  }

  /** Moves the guest to a new emulator over loopback, in one of the emulator's own ways. The first one is ended. */
  async migrate(mode: Mode): Promise<RivalMigration> {
    const source = this.#process;
    const destination = await this.startOther();
    try {
      for (const side of [source, destination]) {
        await setCapabilities(side, CAPABILITIES[mode]);
        await liftLimits(side);
      }
      const uri = `tcp:127.0.0.1:${MIGRATION_PORT}`;
      await destination.execute("migrate-incoming", { uri });
      source.forgetEvents();
      destination.forgetEvents();
      const used = (): number => emulatorSeconds(source.pid) + emulatorSeconds(destination.pid);
      const usedBefore = used();
      await source.execute("migrate", { uri });
      if (mode !== "precopy") await source.execute("migrate-start-postcopy");
      const status = await whenMigrated(source, mode);
      const resumedUs = await destination.timeOf("RESUME");
      const result = {
        totalMs: status["total-time"] ?? NaN,
        downtimeMs: (resumedUs - (await source.timeOf("STOP"))) / 1000,
        cpuSeconds: used() - usedBefore,
        transferredBytes: status.ram?.transferred ?? NaN,
        rounds: status.ram?.["dirty-sync-count"] ?? NaN,
      };
      this.#process = destination;
      await source.end();
      return result;
    } finally {
      if (this.#process !== destination) await destination.end();
    }
  }
}

function firstIn(directory: string): { directory: string; hostPort: number; incoming: boolean } {
  return { directory, hostPort: HOST_PORTS[0], incoming: false };
}

/** Switches on the capabilities named, and off what else these benches ever switch on. */
export async function setCapabilities(side: QemuProcess, wanted: readonly string[]): Promise<void> {
  const capabilities = ALL_CAPABILITIES.map((capability) => ({
    capability,
    state: wanted.includes(capability),
  }));
  await side.execute("migrate-set-capabilities", { capabilities });
}

export async function liftLimits(side: QemuProcess): Promise<void> {
  await side.execute("migrate-set-parameters", {
    "max-bandwidth": BANDWIDTH,
    "max-postcopy-bandwidth": 0,
    "downtime-limit": DOWNTIME_LIMIT_MS,
  });
}

/** Waits for the end of a migration. @throws Error when it failed. */
export async function whenMigrated(source: QemuProcess, what: string): Promise<MigrationStatus> {
  const untilUs = realClock.nowUs() + DEADLINE_MS * 1000;
  for (;;) {
    const status = await source.execute<MigrationStatus>("query-migrate");
    // It is completed a moment before it is known how long it took (QEMU, migration.c: migration_calculate_complete).
    if (status.status === "completed" && status["total-time"] !== 0) return status;
    if (status.status === "failed" || status.status === "cancelled" || realClock.nowUs() > untilUs)
      throw new Error(`${what} is ${status.status}: ${status["error-desc"] ?? "no reason given"}`);
    await sleep(realClock, POLL_MS);
  }
}
