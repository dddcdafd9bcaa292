import type { Clock, Log } from "../../base/index.js";
import type { BootStore } from "../store/boot-store.js";
import { asRoomError } from "../store/files.js";
import type { Paths } from "../store/paths.js";
import { mkdir, rm } from "node:fs/promises";
import type { Admission, Reservation } from "./admission.js";
import { configOf, type ChildSpec } from "./child-spec.js";
import { EmulatorPool } from "./emulator-pool.js";
import { bootFilesOf, writeRecord, type GuestRecord } from "./guest-record.js";
import type { EmulatorSource, LaunchOptions } from "./launcher.js";
import type { LiveEmulator } from "./live-emulator.js";

/** Starts emulators for guests, within the memory this host admits, from the warm ones where one fits. */
export class EmulatorStarter {
  readonly pool: EmulatorPool;
  readonly #source: EmulatorSource;
  readonly #admission: Admission;
  readonly #boot: BootStore;
  readonly #paths: Paths;
  readonly #clock: Clock;

  constructor(options: {
    source: EmulatorSource;
    admission: Admission;
    boot: BootStore;
    paths: Paths;
    warmEmulators: number;
    warmIdleMs: number;
    clock: Clock;
    log: Log;
  }) {
    this.#source = options.source;
    this.#admission = options.admission;
    this.#boot = options.boot;
    this.#paths = options.paths;
    this.#clock = options.clock;
    this.pool = new EmulatorPool({
      start: (spec) => this.#startWarm(spec),
      discard: (live) => this.discard(live),
      bound: options.warmEmulators,
      idleMs: options.warmIdleMs,
      clock: options.clock,
      log: options.log,
    });
  }

  /**
   * Sets memory aside, at the expense of warm emulators where there is not enough.
   * @throws AgentError `no-room`.
   */
  async reserve(bytes: number, what: string): Promise<Reservation> {
    if (!this.#admission.fits(bytes)) await this.pool.evictUntil(() => this.#admission.fits(bytes));
    return this.#admission.reserve(bytes, what);
  }

  /** An emulator that boots a new guest when it is resumed. Owns reservation and holds from the call on, also when it fails. */
  start(options: Omit<LaunchOptions, "incoming">): Promise<LiveEmulator> {
    return this.#source.launch({ ...options, incoming: false });
  }

  /**
   * An emulator that waits for the device state of a child: a warm one, or one started now.
   * @param what is named in a refusal.
   */
  async startChild(spec: ChildSpec, what: string): Promise<LiveEmulator> {
    const warm = this.pool.take(spec);
    if (warm !== undefined) return warm;
    return this.#startIncoming(spec, await this.reserve(this.#bytesOf(spec), what));
  }

  /** Ends an emulator that never became a guest and removes all of it. */
  async discard(live: LiveEmulator): Promise<void> {
    await live.end();
    await rm(this.#paths.guest(live.id), { recursive: true, force: true });
  }

  async #startWarm(spec: ChildSpec): Promise<LiveEmulator> {
    return this.#startIncoming(spec, this.#admission.reserve(this.#bytesOf(spec), "a warm emulator"));
  }

  #bytesOf({ memoryBytes, shares }: ChildSpec): number {
    return this.#admission.bytesFor(memoryBytes, { shares: shares !== undefined });
  }

  async #startIncoming(spec: ChildSpec, reservation: Reservation): Promise<LiveEmulator> {
    const holds = bootFilesOf(spec).map(({ sha256 }) => this.#boot.hold(sha256));
    const config = configOf(spec, "warm");
    try {
      // Before the emulator there is a record, so that a new agent ends it should this one die now.
      await mkdir(this.#paths.guest(config.id), { recursive: true, mode: 0o700 });
      await writeRecord(this.#paths.record(config.id), this.#warmRecord(spec, config));
    } catch (error) {
      reservation.release();
      for (const hold of holds) hold.letGo();
      await rm(this.#paths.guest(config.id), { recursive: true, force: true });
      throw asRoomError(error, this.#paths.guest(config.id));
    }
    try {
      const shares = spec.shares === undefined ? {} : { shares: spec.shares };
      const live = await this.#source.launch({ config, incoming: true, reservation, holds, ...shares });
      // Read now, when nobody waits: the first view of a child has it in it.
      void live.isolation;
      return live;
    } catch (error) {
      await rm(this.#paths.guest(config.id), { recursive: true, force: true });
      throw error;
    }
  }

  #warmRecord(spec: ChildSpec, config: GuestRecord["config"]): GuestRecord {
    const file = ({ sha256, path }: { sha256: string; path: string }) => ({
      sha256,
      sizeBytes: 1,
      source: path,
    });
    return {
      version: 1,
      state: "warm",
      createdAtMs: this.#clock.wallMs(),
      attached: false,
      boot: {
        ...(spec.kernel === undefined ? {} : { kernel: file(spec.kernel) }),
        ...(spec.initrd === undefined ? {} : { initrd: file(spec.initrd) }),
      },
      config,
    };
  }
}
