import { mkdir } from "node:fs/promises";
import { closeSync } from "node:fs";
import { messageOf, type Clock, type Log } from "../../base/index.js";
import {
  endLeftover,
  HeldSaves,
  locateEmulator,
  startEmulator,
  type Emulator,
  type GuestConfig,
} from "../../guest/index.js";
import {
  GuestMemory,
  NamedPipe,
  openTap,
  openUserfaultDevice,
  preloadEnvironment,
} from "../../memory/index.js";
import type { Cell, Isolation } from "../isolation/isolation.js";
import type { BootFileHold } from "../store/boot-store.js";
import { removeGuestMemory } from "../store/guest-memory.js";
import type { Paths } from "../store/paths.js";
import type { Reservation } from "./admission.js";
import { LiveEmulator } from "./live-emulator.js";

/** What an emulator is to be started with. The launcher owns reservation and holds from the call on, also when it fails. */
export interface LaunchOptions {
  config: GuestConfig;
  /** True for an emulator that waits for device state. */
  incoming: boolean;
  reservation: Reservation;
  holds: readonly BootFileHold[];
}

/** Starts emulators and finds running ones; the pool and the tests put something else in its place. */
export interface EmulatorSource {
  /** Starts an emulator, stopped. Undoes everything when that fails. */
  launch(options: LaunchOptions): Promise<LiveEmulator>;
  /** Finds an emulator that an earlier agent started, without a word to it (`connect` it); undefined when it has ended. */
  adopt(options: Omit<LaunchOptions, "incoming">): Promise<LiveEmulator | undefined>;
  /** Ends whatever emulator an earlier agent left in the directory of this id. */
  endLeftover(id: string): Promise<void>;
}

/** The number under which an emulator inherits the first descriptor it is given. */
const INHERITED_DEVICE = 3;

/** The real one: QEMU under the preloaded library, memory on tmpfs. */
export class Launcher implements EmulatorSource {
  readonly #paths: Paths;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #isolation: Isolation;
  readonly #device: number;
  readonly #heldSaves = new HeldSaves((path, owner) => NamedPipe.create(path, owner));

  constructor(options: { paths: Paths; isolation: Isolation; clock: Clock; log: Log }) {
    this.#paths = options.paths;
    this.#isolation = options.isolation;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#device = openUserfaultDevice();
  }

  /** Closes the device emulators make their userfaultfd from; those that run keep theirs. */
  close(): void {
    closeSync(this.#device);
  }

  async launch(options: LaunchOptions): Promise<LiveEmulator> {
    const { config } = options;
    const undo: (() => unknown)[] = [
      () => options.reservation.release(),
      ...options.holds.map((hold) => () => hold.letGo()),
    ];
    try {
      await mkdir(this.#paths.guest(config.id), { recursive: true, mode: 0o700 });
      undo.push(() => removeGuestMemory(this.#paths, config.id));
      const cell = await this.#isolation.enter(config);
      undo.push(() => cell.release());
      const emulator = await this.#start(options, cell);
      undo.push(() => emulator.kill());
      return this.#assemble({ ...options, cell }, emulator);
    } catch (error) {
      for (const step of undo.reverse()) await this.#undo(step);
      throw error;
    }
  }

  async adopt(options: Omit<LaunchOptions, "incoming">): Promise<LiveEmulator | undefined> {
    const { config } = options;
    const emulator = locateEmulator({ config, ...this.#place(config.id) });
    if (emulator === undefined) {
      this.#isolation.forget(config.id);
      return undefined;
    }
    return this.#assemble({ ...options, cell: this.#isolation.adopt(config.id, emulator.pid) }, emulator);
  }

  async endLeftover(id: string): Promise<void> {
    await endLeftover(this.#place(id));
    this.#isolation.forget(id);
  }

  async #start({ config, incoming }: LaunchOptions, { confinement }: Cell): Promise<Emulator> {
    const tap = config.network.mode === "tap" ? openTap(config.network.tap) : undefined;
    try {
      return await startEmulator({
        config,
        ...this.#place(config.id),
        incoming,
        environment: preloadEnvironment(INHERITED_DEVICE),
        descriptors: [this.#device],
        ...(tap === undefined ? {} : { tap }),
        ...(confinement === undefined ? {} : { confinement }),
      });
    } finally {
      if (tap !== undefined) closeSync(tap);
    }
  }

  #place(id: string) {
    return {
      heldSaves: this.#heldSaves,
      directory: this.#paths.guest(id),
      ramPath: this.#paths.ram(id),
      clock: this.#clock,
      log: this.#log,
    };
  }

  #assemble(options: Omit<LaunchOptions, "incoming"> & { cell: Cell }, emulator: Emulator): LiveEmulator {
    const { config } = options;
    const memory = GuestMemory.open({
      pid: emulator.pid,
      ramPath: this.#paths.ram(config.id),
      log: this.#log,
    });
    return new LiveEmulator({
      ...options,
      id: config.id,
      emulator,
      memory,
      paths: this.#paths,
      log: this.#log,
    });
  }

  async #undo(step: () => unknown): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#log.error({ problem: messageOf(error) }, "a start that failed could not be undone in full");
    }
  }
}
