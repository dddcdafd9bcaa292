import { messageOf, type Log } from "../../base/index.js";
import type { Architecture } from "../../control/index.js";
import { ARCHITECTURES } from "../../control/index.js";
import { probeEmulator, type EmulatorProbe } from "../../guest/index.js";
import { AgentError } from "../errors.js";

/** The emulators this host has, asked for once each: a package upgrade counts from the agent's next start. */
export class EmulatorCatalogue {
  readonly #probe: (architecture: Architecture) => Promise<EmulatorProbe>;
  readonly #log: Log;
  readonly #found = new Map<Architecture, Promise<EmulatorProbe>>();

  constructor(options: { probe?: (architecture: Architecture) => Promise<EmulatorProbe>; log: Log }) {
    this.#probe = options.probe ?? probeEmulator;
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

  /** Every emulator the host has. */
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
}
