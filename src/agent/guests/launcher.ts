import { chown, mkdir } from "node:fs/promises";
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { codeOf, messageOf, PAGE_BYTES, type Clock, type Log } from "../../base/index.js";
import {
  endLeftover,
  HeldSaves,
  locateEmulator,
  otherSeat,
  SEATS,
  startEmulator,
  type Emulator,
  type GuestConfig,
  type Seat,
} from "../../guest/index.js";
import {
  type FileIdentity,
  GuestMemory,
  NamedPipe,
  openTap,
  openUserfaultDevice,
  preloadEnvironment,
  takeTap,
} from "../../memory/index.js";
import { AgentError } from "../errors.js";
import type { Cell, Isolation } from "../isolation/isolation.js";
import type { BootFileHold } from "../store/boot-store.js";
import { markShared, removeGuestMemory } from "../store/guest-memory.js";
import type { Paths } from "../store/paths.js";
import type { Reservation } from "./admission.js";
import { LiveEmulator } from "./live-emulator.js";

/** What an emulator is to be started with. The launcher owns reservation and holds from the call on, also when it fails. */
export interface LaunchOptions {
  config: GuestConfig;
  /** True for an emulator that waits for device state. */
  incoming: boolean;
  /** The id of the guest whose memory it maps privately. */
  shares?: string;
  reservation: Reservation;
  holds: readonly BootFileHold[];
}

/** What is known of an emulator that runs. */
export type AdoptOptions = Omit<LaunchOptions, "incoming" | "shares"> & {
  /** The file it has mapped privately. */
  sharing?: Pick<FileIdentity, "dev" | "ino">;
  /** `run` when absent. */
  seat?: Seat | undefined;
};

/** The emulator that is to take over from the one a guest has. */
export interface BesideOptions {
  config: GuestConfig;
  live: LiveEmulator;
  binary: string;
  dataDirectories: readonly string[];
}

/** What a suspended guest is to go on in. */
export interface RelaunchOptions extends Omit<LaunchOptions, "incoming" | "shares"> {
  binary: string;
  dataDirectories: readonly string[];
  seat: Seat;
}

/** Starts emulators and finds running ones; the pool and the tests put something else in its place. */
export interface EmulatorSource {
  /** Starts an emulator, stopped. Undoes everything when that fails. */
  launch(options: LaunchOptions): Promise<LiveEmulator>;
  /** Finds an emulator that an earlier agent started, without a word to it (`connect` it); undefined when it has ended. */
  adopt(options: AdoptOptions): Promise<LiveEmulator | undefined>;
  /**
   * Starts an emulator that waits for the device state of the guest that `live` has, on the same memory, as the same user, with the same tap device and no forwards; it owns nothing of that
   * (`LiveEmulator.takeOver`). Undoes everything when that fails.
   */
  launchBeside(options: BesideOptions): Promise<LiveEmulator>;
  /**
   * Starts an emulator that waits for the device state of a suspended guest, on the memory that guest has. When that fails, reservation and holds are the caller's still, and the memory is as it was.
   */
  relaunch(options: RelaunchOptions): Promise<LiveEmulator>;
  /** Ends whatever emulator an earlier agent left in the directory of this id, or only the one in this seat. */
  endLeftover(id: string, seat?: Seat): Promise<void>;
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
      const cell = await this.#isolation.enter(config, { privateMemory: options.shares !== undefined });
      undo.push(() => cell.release());
      const shared = options.shares === undefined ? undefined : this.#openShared(options.shares, config);
      undo.push(() => shared !== undefined && closeSync(shared.fd));
      const emulator = await this.#start(options, cell, shared?.fd);
      undo.push(() => emulator.kill());
      const live = this.#assemble(
        { ...options, cell, ...(shared === undefined ? {} : { sharing: shared }) },
        emulator,
      );
      if (shared !== undefined) closeSync(shared.fd);
      return live;
    } catch (error) {
      for (const step of undo.reverse()) await this.#undo(step);
      throw error;
    }
  }

  async launchBeside({ config, live, binary, dataDirectories }: BesideOptions): Promise<LiveEmulator> {
    const { pid } = live.emulator;
    const seat = otherSeat(live.seat);
    const confinement = this.#isolation.beside(config, pid);
    const { network } = config;
    const tap = network.mode === "tap" ? takeTap(pid, network.tap) : undefined;
    try {
      const emulator = await startEmulator({
        // What is forwarded is the first one's until that is off it.
        config: network.mode === "user" ? { ...config, network: { ...network, forwards: [] } } : config,
        ...this.#place(config.id, seat),
        incoming: true,
        binary,
        dataDirectories,
        environment: preloadEnvironment(INHERITED_DEVICE),
        descriptors: [this.#device],
        ...(tap === undefined ? {} : { tap }),
        ...(confinement === undefined ? {} : { confinement }),
      });
      try {
        const memory = GuestMemory.open({
          pid: emulator.pid,
          ramPath: this.#paths.ram(config.id),
          log: this.#log,
        });
        return live.beside({ emulator, memory, seat });
      } catch (error) {
        await this.#undo(() => emulator.kill());
        throw error;
      }
    } finally {
      if (tap !== undefined) closeSync(tap);
    }
  }

  async relaunch(options: RelaunchOptions): Promise<LiveEmulator> {
    const { config, binary, dataDirectories, seat } = options;
    const cell = await this.#isolation.enter(config, { privateMemory: false });
    const tap = config.network.mode === "tap" ? openTap(config.network.tap) : undefined;
    try {
      // It was another user's.
      const uid = cell.confinement?.uid;
      if (uid !== undefined) await chown(this.#paths.ram(config.id), uid, uid);
      const emulator = await startEmulator({
        config,
        ...this.#place(config.id, seat),
        incoming: true,
        binary,
        dataDirectories,
        environment: preloadEnvironment(INHERITED_DEVICE),
        descriptors: [this.#device],
        ...(tap === undefined ? {} : { tap }),
        ...(cell.confinement === undefined ? {} : { confinement: cell.confinement }),
      });
      try {
        return this.#assemble({ ...options, cell }, emulator);
      } catch (error) {
        await this.#undo(() => emulator.kill());
        throw error;
      }
    } catch (error) {
      await this.#undo(() => cell.release());
      throw error;
    } finally {
      if (tap !== undefined) closeSync(tap);
    }
  }

  async adopt(options: AdoptOptions): Promise<LiveEmulator | undefined> {
    const { config } = options;
    const emulator = locateEmulator({ config, ...this.#place(config.id, options.seat) });
    if (emulator === undefined) {
      this.#isolation.forget(config.id);
      return undefined;
    }
    return this.#assemble({ ...options, cell: this.#isolation.adopt(config.id, emulator.pid) }, emulator);
  }

  async endLeftover(id: string, seat?: Seat): Promise<void> {
    for (const one of seat === undefined ? SEATS : [seat]) await endLeftover(this.#place(id, one));
    // What it was started under is also that of the guest's other emulator.
    if (seat === undefined) this.#isolation.forget(id);
  }

  async #start(
    { config, incoming }: LaunchOptions,
    { confinement }: Cell,
    shared: number | undefined,
  ): Promise<Emulator> {
    const memory =
      shared === undefined ? undefined : { fdNumber: INHERITED_DEVICE + 1, path: this.#paths.ram(config.id) };
    const tap = config.network.mode === "tap" ? openTap(config.network.tap) : undefined;
    try {
      return await startEmulator({
        config,
        ...this.#place(config.id),
        incoming,
        environment: preloadEnvironment(INHERITED_DEVICE, memory),
        descriptors: shared === undefined ? [this.#device] : [this.#device, shared],
        privateMemory: shared !== undefined,
        ...(tap === undefined ? {} : { tap }),
        ...(confinement === undefined ? {} : { confinement }),
      });
    } finally {
      if (tap !== undefined) closeSync(tap);
    }
  }

  #place(id: string, seat: Seat = "run") {
    return {
      seat,
      heldSaves: this.#heldSaves,
      directory: this.#paths.guest(id),
      ramPath: this.#paths.ram(id),
      clock: this.#clock,
      log: this.#log,
    };
  }

  /** Another guest's memory file, for an emulator that can only read it. @throws AgentError `bad-state`. */
  #openShared(id: string, config: GuestConfig): FileIdentity & { fd: number } {
    try {
      // From now on its pages must not be taken from under those who have mapped it.
      markShared(this.#paths, id);
      const fd = openSync(this.#paths.ram(id), constants.O_RDONLY | constants.O_NOFOLLOW);
      const { dev, ino } = fstatSync(fd);
      return { fd, dev, ino, pageCount: config.memoryBytes / PAGE_BYTES };
    } catch (cause) {
      const message = `the memory of guest ${id} is not there to be shared (${codeOf(cause)})`;
      throw new AgentError("bad-state", message, { cause });
    }
  }

  #assemble(options: AdoptOptions & { cell: Cell }, emulator: Emulator): LiveEmulator {
    const { config, sharing } = options;
    const { pid } = emulator;
    const log = this.#log;
    const memory =
      sharing === undefined
        ? GuestMemory.open({ pid, ramPath: this.#paths.ram(config.id), log })
        : GuestMemory.openPrivate({
            pid,
            file: { ...sharing, pageCount: config.memoryBytes / PAGE_BYTES },
            log,
          });
    return new LiveEmulator({
      ...options,
      seat: options.seat ?? "run",
      id: config.id,
      emulator,
      memory,
      paths: this.#paths,
      clock: this.#clock,
      log,
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
