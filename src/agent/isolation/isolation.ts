import { createHash, randomInt } from "node:crypto";
import { execFile } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync, statSync } from "node:fs";
import { chmod, chown, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { assert, messageOf, type Log } from "../../base/index.js";
import { confinedCommand, prepareRoot, type Confinement, type GuestConfig } from "../../guest/index.js";
import { nativePaths } from "../../memory/index.js";
import type { Configuration } from "../configuration/index.js";
import { diskPlaces } from "../disks/guest-disks.js";
import { AgentError } from "../errors.js";
import type { Paths } from "../store/paths.js";
import { Cgroups } from "./cgroups.js";

const MIB = 1024 * 1024;
const USERFAULT_DEVICE = "/dev/userfaultfd";
const TRIAL_DEADLINE_MS = 10_000;

type Settings = Configuration["isolation"];

/** What an emulator is started under; `release` is called when its process has ended. */
export interface Cell {
  confinement: Confinement | undefined;
  release(): void;
}

/**
 * Keeps emulators apart from the host and from each other: a user each, a file system each, limits each. What this machine cannot do is
 * found out once, at the start, by doing it.
 *
 *     open ─▶ enter (before an emulator starts) ─▶ Cell.release (after it has ended)
 *         └─▶ adopt (for one that runs)         ─▶ Cell.release
 */
export class Isolation {
  readonly #settings: Settings;
  readonly #paths: Paths;
  readonly #cgroups: Cgroups | undefined;
  readonly #confines: boolean;
  readonly #users = new Set<number>();

  private constructor(options: {
    settings: Settings;
    paths: Paths;
    cgroups: Cgroups | undefined;
    confines: boolean;
  }) {
    this.#settings = options.settings;
    this.#paths = options.paths;
    this.#cgroups = options.cgroups;
    this.#confines = options.confines;
  }

  /**
   * Finds out what can be had on this machine, and logs what cannot.
   * @throws AgentError `no-isolation` when all of it is required.
   */
  static async open(options: { settings: Settings; paths: Paths; log: Log }): Promise<Isolation> {
    const { settings, paths, log } = options;
    if (settings.mode === "off") {
      log.warn(
        { mode: settings.mode },
        "isolation is switched off: emulators run as the agent's user and see its files",
      );
      return new Isolation({ settings, paths, cgroups: undefined, confines: false });
    }
    const problems: string[] = [];
    let confines = false;
    try {
      await tryConfinement(paths, settings.firstUid);
      confines = true;
    } catch (error) {
      problems.push(`emulators run as the agent's user and see its files: ${messageOf(error)}`);
    }
    const cgroups = confines ? openCgroups({ settings, paths, problems }) : undefined;
    if (problems.length > 0) {
      if (settings.mode === "required") {
        cgroups?.close();
        throw new AgentError(
          "no-isolation",
          `isolation.mode is "required", but ${problems.join("; ")}. Mend that, or set isolation.mode to "auto"`,
        );
      }
      log.warn({ problems }, "emulators are not isolated in full on this machine");
    }
    return new Isolation({ settings, paths, cgroups, confines });
  }

  /** Whether emulators have a user of their own, who may less than the agent's. */
  get confines(): boolean {
    return this.#confines;
  }

  /** The user for programs that read what strangers made: the last of the range, which no emulator is given. Undefined where there is no other user. */
  get toolUid(): number | undefined {
    const { firstUid, uidCount } = this.#settings;
    return this.#confines && uidCount > 1 ? firstUid + uidCount - 1 : undefined;
  }

  /** Lets go of what no emulator uses. */
  close(): void {
    this.#cgroups?.close();
  }

  /** Prepares what an emulator is to be started under, the directory of its memory included. @throws AgentError `no-isolation`. */
  async enter(config: GuestConfig, options: { privateMemory: boolean }): Promise<Cell> {
    const memory = this.#paths.guestMemory(config.id);
    await mkdir(memory, { recursive: true, mode: 0o700 });
    if (!this.#confines) return { confinement: undefined, release() {} };
    const uid = this.#takeUser();
    try {
      // Only the emulator may pass through, to a file that is its own; nothing can be added or exchanged by it.
      await chown(memory, 0, uid);
      await chmod(memory, 0o710);
      // Their directory is closed to everybody, and an emulator sees only its own two.
      for (const path of [config.kernel, config.initrd]) if (path !== undefined) await chmod(path, 0o444);
      // What a guest writes is its emulator's; what that stands on, anybody may read who knows its name.
      for (const { chain } of config.disks) await chown(chain[0]?.path ?? "", uid, uid);
      const confinement = this.#confinementOf(config, uid, options);
      return { confinement, release: () => this.#release(config.id, uid) };
    } catch (error) {
      this.#release(config.id, uid);
      throw error;
    }
  }

  /**
   * What a second emulator of a guest is to be started under while the first one, `pid`, still runs: as the same user, to whom memory and disks belong, and in the same cgroup.
   * That stays the guest's: there is nothing to release besides the first one's. Undefined where that is not confined.
   */
  beside(config: GuestConfig, pid: number): Confinement | undefined {
    const uid = statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? 0;
    if (!this.#confines || uid === 0) return undefined;
    return this.#confinementOf(config, uid, { privateMemory: false });
  }

  /** Counts the user of an emulator that runs already, so that no other one is given it. */
  adopt(id: string, pid: number): Cell {
    const uid = statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? 0;
    if (uid !== 0) this.#users.add(uid);
    return { confinement: undefined, release: () => this.#release(id, uid) };
  }

  /** Removes what an emulator that an earlier agent started, and that has ended, was started under. */
  forget(id: string): void {
    this.#cgroups?.remove(id);
  }

  #confinementOf(config: GuestConfig, uid: number, options: { privateMemory: boolean }): Confinement {
    const places = diskPlaces(config.disks);
    return {
      uid,
      root: join(this.#paths.guest(config.id), "root"),
      cgroups: this.#cgroups?.make(config.id, this.#limits(config, options)) ?? [],
      readOnly: [nativePaths().preload, ...places.readOnly],
      writable: places.writable,
    };
  }

  #limits(config: GuestConfig, { privateMemory }: { privateMemory: boolean }) {
    const { overheadMib, tasks, cpuWeight, spareCpus } = this.#settings;
    // A private page where the file has a hole makes the kernel fill that too, on the account of whoever touched it.
    const memoryBytes = config.memoryBytes * (privateMemory ? 2 : 1);
    return {
      memoryBytes: memoryBytes + overheadMib * MIB,
      tasks,
      cpuWeight,
      cpuPercent: (config.cpus + spareCpus) * 100,
    };
  }

  /**
   * A user that no emulator of this agent has. Other agents on the machine are not asked: the range is so wide that two hardly ever draw the
   * same, and then the file systems of the two emulators still keep them apart.
   */
  #takeUser(): number {
    const { firstUid, uidCount: all } = this.#settings;
    const uidCount = Math.max(1, all - 1);
    if (this.#users.size >= uidCount) {
      throw new AgentError(
        "no-isolation",
        `all ${uidCount} users of isolation.firstUid and uidCount are taken; widen the range`,
      );
    }
    let uid: number;
    do uid = firstUid + randomInt(uidCount);
    while (this.#users.has(uid));
    this.#users.add(uid);
    return uid;
  }

  #release(id: string, uid: number): void {
    this.#users.delete(uid);
    this.#cgroups?.remove(id);
  }
}

function openCgroups(options: { settings: Settings; paths: Paths; problems: string[] }): Cgroups | undefined {
  // A state directory has one agent at a time.
  const key = createHash("sha256").update(options.paths.guests).digest("hex").slice(0, 12);
  try {
    return Cgroups.open({ parent: options.settings.cgroup, key });
  } catch (error) {
    options.problems.push(
      `emulators have no limits of memory, tasks and processor time: ${messageOf(error)}`,
    );
    return undefined;
  }
}

/** Starts a program that does nothing in the way emulators are started. @throws Error with the reason. */
async function tryConfinement(paths: Paths, uid: number): Promise<void> {
  if (process.geteuid?.() !== 0) throw new Error("the agent does not run as root");
  accessSync(USERFAULT_DEVICE, constants.R_OK | constants.W_OK);
  await mkdir(paths.guests, { recursive: true, mode: 0o700 });
  const directory = mkdtempSync(join(paths.guests, "trial-"));
  try {
    const confinement: Confinement = { uid, root: join(directory, "root"), cgroups: [], readOnly: [] };
    const mounts = prepareRoot({ confinement, writable: [], accelerator: "tcg" });
    const { binary, args, environment } = confinedCommand({
      confinement,
      mounts,
      directory: "/",
      sharesNetwork: false,
      groups: [],
      environment: {},
      binary: "/usr/bin/id",
      args: ["-u"],
    });
    const run = promisify(execFile);
    const { stdout } = await run(binary, args, {
      env: environment,
      timeout: TRIAL_DEADLINE_MS,
      killSignal: "SIGKILL",
    });
    assert(stdout.trim() === String(uid), `a confined program runs as user ${uid}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
