import { statSync } from "node:fs";
import { messageOf, type Log } from "../../base/index.js";
import type { Architecture, InstalledEmulator } from "../../control/index.js";
import { ARCHITECTURES } from "../../control/index.js";
import { compareVersions, findEmulator, probeEmulator, type EmulatorProbe } from "../../guest/index.js";
import type { Configuration } from "../configuration/index.js";
import { AgentError } from "../errors.js";

/** An emulator besides those on PATH, as the configuration names it. */
export type ConfiguredEmulator = Configuration["emulators"][number];

/** An emulator of this host that a guest can run on. */
export interface Choice extends EmulatorProbe {
  /** Where it finds its firmware, for one that is not installed. */
  dataDirectories: readonly string[];
}

type Probe = (architecture: Architecture, options?: { binary?: string }) => Promise<EmulatorProbe>;

/** One emulator whose file may be there. */
interface Place {
  path: string;
  architecture: Architecture;
  dataDirectories: readonly string[];
  isDefault: boolean;
}

/** The emulators this host has: for each architecture the one on PATH, on which guests start, and those the configuration names besides. */
export class EmulatorCatalogue {
  readonly #probe: Probe;
  readonly #configured: readonly ConfiguredEmulator[];
  readonly #log: Log;
  /** What guests start on is asked for once: a package upgrade counts from the agent's next start. */
  readonly #found = new Map<Architecture, Promise<EmulatorProbe>>();

  constructor(options: { probe?: Probe; configured?: readonly ConfiguredEmulator[]; log: Log }) {
    this.#probe = options.probe ?? probeEmulator;
    this.#configured = options.configured ?? [];
    this.#log = options.log;
  }

  /** What the emulator of an architecture is and can; rejects when the host has none. */
  async find(architecture: Architecture): Promise<EmulatorProbe> {
    const known = this.#found.get(architecture) ?? this.#probe(architecture);
    this.#found.set(architecture, known);
    try {
      return await known;
    } catch (error) {
      // Someone may install it: ask again next time.
      this.#found.delete(architecture);
      throw error;
    }
  }

  /** What guests of each architecture start on. */
  async all(): Promise<(EmulatorProbe & { architecture: Architecture })[]> {
    const found: (EmulatorProbe & { architecture: Architecture })[] = [];
    for (const architecture of ARCHITECTURES) {
      try {
        found.push({ ...(await this.find(architecture)), architecture });
      } catch (error) {
        this.#log.debug({ architecture, problem: messageOf(error) }, "no emulator for this architecture");
      }
    }
    return found;
  }

  /** Every emulator there is now, the default of each architecture first; one that does not answer says why. */
  async installed(): Promise<Omit<InstalledEmulator, "guests">[]> {
    return Promise.all(
      this.#places().map(async ({ path, architecture, isDefault }) => {
        try {
          const { version, machines } = await this.#probe(architecture, { binary: path });
          return { path, architecture, isDefault, version, machines: [...machines] };
        } catch (error) {
          return { path, architecture, isDefault, problem: messageOf(error).slice(0, 500) };
        }
      }),
    );
  }

  /**
   * The emulator a user means: by its path, by its version or the beginning of that (`10`, `10.0`), of which the newest counts, or without either what guests start on.
   * Asked anew, for it may have been upgraded since the agent was started.
   * @throws AgentError `no-such-emulator`; GuestError when it does not answer.
   */
  async choose(architecture: Architecture, wanted?: string): Promise<Choice> {
    const places = this.#places().filter((place) => place.architecture === architecture);
    if (wanted?.startsWith("/") === true) {
      const place = places.find(({ path }) => path === wanted);
      if (place === undefined) throw this.#unknown(architecture, wanted, places);
      return this.#ask(place);
    }
    if (wanted === undefined) {
      const place = places.find(({ isDefault }) => isDefault);
      if (place === undefined) throw this.#unknown(architecture, "on PATH", places);
      return this.#ask(place);
    }
    const found: Choice[] = [];
    for (const place of places) {
      try {
        const choice = await this.#ask(place);
        if (choice.version === wanted || choice.version.startsWith(`${wanted}.`)) found.push(choice);
      } catch (error) {
        this.#log.debug({ path: place.path, problem: messageOf(error) }, "an emulator does not answer");
      }
    }
    const newest = found.toSorted((one, other) => compareVersions(other.version, one.version))[0];
    if (newest === undefined) throw this.#unknown(architecture, wanted, places);
    return newest;
  }

  /** @throws AgentError `refused` when the emulator here does not have the machine type that a device state needs. */
  async requireMachine(architecture: Architecture, machine: string): Promise<void> {
    const { version, machines } = await this.find(architecture);
    if (machines.includes(machine)) return;
    throw new AgentError(
      "refused",
      `the emulator of this host (${architecture}, version ${version}) has no machine type ${machine}, which the guest was started with; ` +
        "install a newer emulator here",
    );
  }

  #places(): Place[] {
    const defaults = ARCHITECTURES.flatMap((architecture) => {
      const path = findEmulator(architecture);
      return path === undefined ? [] : [{ path, architecture, dataDirectories: [], isDefault: true }];
    });
    const known = new Set(defaults.map(({ path }) => path));
    const others = this.#configured.filter(({ path }) => !known.has(path));
    return [...defaults, ...others.map((emulator) => ({ ...emulator, isDefault: false }))];
  }

  async #ask({ architecture, path, dataDirectories }: Place): Promise<Choice> {
    return { ...(await this.#probe(architecture, { binary: path })), dataDirectories };
  }

  #unknown(architecture: Architecture, wanted: string, places: readonly Place[]): AgentError {
    const there = places.map(({ path }) => path).join(", ");
    return new AgentError(
      "no-such-emulator",
      `this host has no emulator ${wanted} for ${architecture}; there is ${there === "" ? "none" : there}. ` +
        "`emulators` in the agent's configuration names others",
    );
  }
}

/** Which file a path, or a process by its `/proc/PID/exe`, is; undefined when there is none. */
export function fileKey(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** Which file a process executes, however that is called by now; undefined when it has ended. */
export function programKey(pid: number): string | undefined {
  return fileKey(`/proc/${pid}/exe`);
}
