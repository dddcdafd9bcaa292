import { rmSync } from "node:fs";
import { assert, messageOf, sleep, type Clock, type Log, type Timer } from "../base/index.js";
import type { Forward, GuestConfig } from "./config.js";
import { openConsole } from "./console.js";
import { DeviceStateLoader } from "./device-state-loader.js";
import { DeviceStateSaver } from "./device-state-saver.js";
import { EmulatorDisks } from "./emulator-disks.js";
import type { Console, Emulator, EmulatorExit, EmulatorStatus, GuestEvent, Snapshot } from "./emulator.js";
import { GuestError } from "./errors.js";
import { addForward, removeForward } from "./forwards.js";
import { releaseHeld, type HeldSaves, type InPause } from "./held-save.js";
import type { Layout } from "./layout.js";
import {
  COMMAND_DEADLINE_MS,
  END_GRACE_POLLS,
  EXIT_POLL_MS,
  KILL_DEADLINE_MS,
  LIVENESS_INTERVAL_MS,
  LOAD_DEADLINE_MS,
  QUIT_DEADLINE_MS,
  QUOTED_LOG_BYTES,
  STOP_DEADLINE_MS,
} from "./limits.js";
import { logTrimmer, tailOf } from "./logs.js";
import { isAlive, signalProcess, waitForEnd, type ProcessEnd, type ProcessIdentity } from "./process.js";
import { EmulatorPriority } from "./priority.js";
import { QmpClient, type QmpEvent } from "./qmp.js";
import { snapshotInTime } from "./snapshot.js";
import { exitOf, loadOutcomeOf, statusOf } from "./run-state.js";

export class QemuEmulator implements Emulator {
  readonly config: GuestConfig;
  readonly ramPath: string;
  readonly disks = new EmulatorDisks((...command) => this.#execute(...command));
  readonly #layout: Layout;
  readonly #identity: ProcessIdentity;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #saver: DeviceStateSaver;
  readonly #loader: DeviceStateLoader;
  readonly #priority: EmulatorPriority;
  readonly #eventHandlers: ((event: GuestEvent) => void)[] = [];
  readonly #exitHandlers: ((exit: EmulatorExit) => void)[] = [];
  #qmp: QmpClient | undefined;
  #version = "";
  #exit: EmulatorExit | undefined;
  #processEnd: ProcessEnd | undefined;
  /** Whether its exit code is still to come, by `noteProcessEnd`. */
  #awaitsProcessEnd: boolean;
  #asked = false;
  #switchedOff = false;
  #detached = false;
  #opening: Promise<void> | undefined;
  #liveness: Timer | undefined;
  readonly #trimLogs: () => void;
  #consoleOpen = false;
  /** The last STOP and RESUME, which the emulator sends ahead of its answer to the command. */
  #stoppedAtUs: number | undefined;
  #resumedAtUs: number | undefined;

  /** The emulator is not of use before `connect`. */
  constructor(options: {
    config: GuestConfig;
    layout: Layout;
    identity: ProcessIdentity;
    isOwnProcess: boolean;
    heldSaves?: HeldSaves | undefined;
    clock: Clock;
    log: Log;
  }) {
    this.config = options.config;
    this.ramPath = options.layout.ramPath;
    this.#awaitsProcessEnd = options.isOwnProcess;
    this.#layout = options.layout;
    this.#identity = options.identity;
    this.#clock = options.clock;
    this.#log = options.log.child({ guest: options.config.id });
    this.#priority = new EmulatorPriority(options.identity.pid);
    const { config, layout, identity, heldSaves, clock } = options;
    this.#saver = new DeviceStateSaver({ pid: identity.pid, config, layout, heldSaves, clock });
    this.#loader = new DeviceStateLoader({ machine: config.machine, socket: layout.stateSocket, clock });
    this.#trimLogs = logTrimmer([layout.consoleLog, layout.emulatorLog], clock);
  }

  get pid(): number {
    return this.#identity.pid;
  }

  get version(): string {
    return this.#version;
  }

  /** Connects to the emulator, unless that has been done, and watches over its process from then on. @throws GuestError `gone`, `protocol`, `timeout`. */
  async connect(deadlineMs = COMMAND_DEADLINE_MS): Promise<void> {
    if (this.#qmp?.open !== true) await this.#openOnce(deadlineMs);
    this.watch();
  }

  /** Watches over the process from now on, and connects to it as soon as it answers. */
  watch(): void {
    if (this.#liveness === undefined) this.#watch();
  }

  /** Told by whoever started the process how it ended, which nobody else can know. */
  noteProcessEnd(end: ProcessEnd): void {
    this.#processEnd = end;
    this.#awaitsProcessEnd = false;
    this.#checkAlive();
  }

  /** Makes an emulator that was started with `incoming` wait for a device state; saves a round trip when the state arrives. */
  async expectDeviceState(): Promise<void> {
    // Until it runs, nobody but a child that is waited for has work for it.
    this.#priority.hurryAll();
    await this.#loader.expect((command, args) => this.#execute(command, args));
  }

  async status(): Promise<EmulatorStatus> {
    return this.#exit === undefined ? statusOf(await this.#execute("query-status")) : "ended";
  }

  async stop(options = { forGood: false }): Promise<{ stoppedAtUs: number }> {
    this.#stoppedAtUs = undefined;
    this.#priority.hurry();
    const freeze = this.disks.takePending();
    const stopped = Promise.all([
      this.#execute("stop", {}, STOP_DEADLINE_MS),
      // Behind the stop and ahead of the saving, so that disks and devices are of one instant.
      ...(freeze === undefined ? [] : [this.#execute(freeze.command, freeze.args)]),
    ]);
    if (this.#qmp?.open === true) this.#saver.begin(this.#qmp);
    try {
      await stopped;
    } catch (error) {
      if (error instanceof GuestError && error.code === "timeout" && !options.forGood) this.#resumeLate();
      throw error;
    }
    // A guest that was stopped already gives no event.
    return { stoppedAtUs: this.#stoppedAtUs ?? this.#clock.wallMs() * 1000 };
  }

  async resume(): Promise<{ resumedAtUs: number }> {
    this.#resumedAtUs = undefined;
    await this.#execute("cont");
    this.#priority.calm();
    this.#saver.discard();
    return { resumedAtUs: this.#resumedAtUs ?? this.#clock.wallMs() * 1000 };
  }

  async prepareDeviceState(options: { handOver: boolean; ahead?: boolean } = { handOver: false }) {
    if (options.ahead !== true) this.#priority.hurry();
    return this.#saver.prepare(this.#connection(), options).finally(() => this.#priority.calm());
  }

  forgetDeviceState(): void {
    this.#saver.discard();
  }

  async snapshot(work: InPause): Promise<Snapshot> {
    this.#stoppedAtUs = undefined;
    this.#resumedAtUs = undefined;
    this.#priority.hurry();
    try {
      const saved = await this.#saver.saveHeld(this.#connection(), work, this.disks);
      if (saved === undefined) return await snapshotInTime(this, work, this.#clock);
      return { ...saved, stoppedAtUs: this.#stoppedAtUs ?? 0, resumedAtUs: this.#resumedAtUs ?? 0 };
    } finally {
      this.#priority.calm();
    }
  }

  saveDeviceState(options: { handOver: boolean }): ReturnType<Emulator["saveDeviceState"]> {
    return this.#saver.save(this.#connection(), options);
  }

  beginDeviceState(head: Uint8Array): Promise<void> {
    return this.#orKill(() => this.#loader.begin(head, LOAD_DEADLINE_MS));
  }

  loadDeviceState(state: Uint8Array, options: { deadlineMs?: number; run?: boolean } = {}): Promise<void> {
    const { deadlineMs = LOAD_DEADLINE_MS } = options;
    return this.#orKill(async () => {
      const loading = this.#loader.load(state, deadlineMs);
      // It reads this while it loads. Said before the end of that, it has the guest run then (QEMU, qmp_cont); said after it, at once.
      await Promise.all([loading, ...(options.run === true ? [this.#execute("cont", {}, deadlineMs)] : [])]);
      if (options.run === true) this.#priority.calm();
    });
  }

  /** A half-loaded guest is of no use. */
  async #orKill(load: () => Promise<void>): Promise<void> {
    try {
      await load();
    } catch (error) {
      const reason = tailOf(this.#layout.emulatorLog, QUOTED_LOG_BYTES, this.#layout.logFrom);
      await this.kill();
      if (error instanceof GuestError && error.code === "bad-device-state") throw error;
      throw new GuestError(
        "load-failed",
        `the emulator ${this.#version} with machine type ${this.config.machine} did not load the device state` +
          ` (${messageOf(error)}); it says: ${reason === "" ? "nothing" : reason}`,
        { cause: error },
      );
    }
  }

  async addForward(forward: Forward): Promise<void> {
    await addForward(this.#connection(), forward);
  }

  async removeForward(forward: Forward): Promise<void> {
    await removeForward(this.#connection(), forward);
  }

  async announce(): Promise<void> {
    // Five announcements within a second, the emulator's own habit after a migration.
    await this.#execute("announce-self", { initial: 50, max: 550, rounds: 5, step: 100 });
  }

  async powerDown(): Promise<void> {
    await this.#execute("system_powerdown");
  }

  async quit(): Promise<void> {
    this.#asked = true;
    try {
      await this.#execute("quit", {}, QUIT_DEADLINE_MS);
      await waitForEnd(this.#identity, { clock: this.#clock, deadlineMs: QUIT_DEADLINE_MS });
    } catch {
      // It may have ended before it answered, or hang: kill finds out which.
    }
    await this.kill();
  }

  async kill(): Promise<void> {
    this.#asked = true;
    signalProcess(this.#identity, "SIGKILL");
    await waitForEnd(this.#identity, { clock: this.#clock, deadlineMs: KILL_DEADLINE_MS });
    // Whoever starts another emulator in the directory next must not have its sockets removed by a late look at this one's end.
    for (let poll = 0; poll < END_GRACE_POLLS && this.#awaitsProcessEnd && !this.#detached; poll += 1) {
      await sleep(this.#clock, EXIT_POLL_MS);
    }
    this.#awaitsProcessEnd = false;
    this.#checkAlive();
  }

  async openConsole(handlers: { onData(bytes: Uint8Array): void; onEnd(): void }): Promise<Console> {
    if (this.#consoleOpen)
      throw new GuestError("busy", `the console of ${this.config.name} is already attached`);
    this.#consoleOpen = true;
    const onEnd = (): void => {
      this.#consoleOpen = false;
      handlers.onEnd();
    };
    try {
      const { onData } = handlers;
      const path = this.#layout.consoleSocket;
      return await openConsole({ guest: this.config.name, path, clock: this.#clock, onData, onEnd });
    } catch (error) {
      this.#consoleOpen = false;
      throw error;
    }
  }

  onGuestEvent(handler: (event: GuestEvent) => void): void {
    this.#eventHandlers.push(handler);
  }

  onExit(handler: (exit: EmulatorExit) => void): void {
    if (this.#exit === undefined) this.#exitHandlers.push(handler);
    else handler(this.#exit);
  }

  detach(): void {
    this.#detached = true;
    this.#release();
  }

  #openOnce(deadlineMs: number): Promise<void> {
    this.#opening ??= this.#openQmp(deadlineMs).finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  async #openQmp(deadlineMs: number): Promise<void> {
    // It may wait for the agent before this one, which has ended.
    const endRelease = releaseHeld(this.#layout.savePath);
    const qmp = await QmpClient.connect({
      path: this.#layout.qmpSocket,
      clock: this.#clock,
      deadlineMs,
      onEvent: (event) => this.#readEvent(event),
      onEnd: (reason) => void this.#connectionEnded(reason),
    }).finally(endRelease);
    if (this.#detached || this.#exit !== undefined) return qmp.close();
    this.#qmp = qmp;
    const { major, minor, micro } = qmp.version;
    this.#version = `${major}.${minor}.${micro}`;
    // An agent before this one may have ended while it was ahead.
    this.#priority.calm();
  }

  #connection(): QmpClient {
    assert(!this.#detached, "an emulator that was let go of is not commanded");
    if (this.#exit === undefined && this.#qmp?.open === true) return this.#qmp;
    throw new GuestError(
      "gone",
      `the emulator of ${this.config.name} ${this.#exit === undefined ? "does not answer" : "has ended"}`,
    );
  }

  async #execute(command: string, args: object = {}, deadlineMs = COMMAND_DEADLINE_MS): Promise<unknown> {
    return this.#connection().execute(command, args, { deadlineMs });
  }

  /** After a stop that was not answered in time: it may still happen, and then the guest must not stay stopped. */
  #resumeLate(): void {
    this.#execute("cont", {}, STOP_DEADLINE_MS).catch((error: unknown) => {
      this.#log.error(
        { reason: messageOf(error) },
        "a guest may be stopped: neither stop nor resume was answered",
      );
    });
  }

  #readEvent(event: QmpEvent): void {
    if (event.name === "STOP") {
      this.#stoppedAtUs = event.atUs;
      this.#saver.noteStopped();
    }
    if (event.name === "RESUME") this.#resumedAtUs = event.atUs;
    if (event.name === "SHUTDOWN") this.#switchedOff = true;
    if (event.name === "RESET") this.#switchedOff = false;
    if (event.name === "MIGRATION") {
      const outcome = loadOutcomeOf(event.data);
      if (outcome !== undefined) this.#loader.note(outcome);
      return;
    }
    for (const handler of this.#eventHandlers) handler(event);
  }

  /** The connection ends when the emulator does, or by itself; then it is opened again. */
  async #connectionEnded(reason: GuestError): Promise<void> {
    for (let poll = 0; poll < END_GRACE_POLLS && isAlive(this.#identity); poll += 1)
      await sleep(this.#clock, EXIT_POLL_MS);
    this.#checkAlive();
    if (this.#exit !== undefined || this.#detached) return;
    this.#loader.note("failed");
    this.#log.warn(
      { code: reason.code, reason: reason.message },
      "the emulator lives on without its control connection",
    );
  }

  #watch(): void {
    if (this.#exit !== undefined || this.#detached) return;
    this.#liveness = this.#clock.after(LIVENESS_INTERVAL_MS, () => {
      this.#checkAlive();
      this.#checkConnection();
      this.#trimLogs();
      this.#watch();
    });
  }

  #checkConnection(): void {
    if (this.#exit !== undefined || this.#detached || this.#opening !== undefined || this.#qmp?.open === true)
      return;
    this.#openOnce(COMMAND_DEADLINE_MS).catch((error: unknown) =>
      this.#log.debug({ reason: messageOf(error) }, "the emulator cannot be reached"),
    );
  }

  #checkAlive(): void {
    if (this.#exit !== undefined || this.#detached || isAlive(this.#identity)) return;
    if (this.#awaitsProcessEnd) return this.#checkAliveLater();
    const cause = this.#asked ? "asked" : this.#switchedOff ? "guest" : "crashed";
    const lastLog = tailOf(this.#layout.emulatorLog, QUOTED_LOG_BYTES, this.#layout.logFrom);
    const exit = exitOf(cause, { end: this.#processEnd, lastLog });
    this.#exit = exit;
    this.#release();
    const { qmpSocket, consoleSocket, stateSocket, pidFile } = this.#layout;
    for (const path of [qmpSocket, consoleSocket, stateSocket, pidFile]) rmSync(path, { force: true });
    this.#loader.note("failed");
    for (const handler of this.#exitHandlers) handler(exit);
  }

  /** The process's end is seen a moment before its exit code is told, which is not waited for any longer than that. */
  #checkAliveLater(): void {
    this.#clock.after(END_GRACE_POLLS * EXIT_POLL_MS, () => {
      this.#awaitsProcessEnd = false;
      this.#checkAlive();
    });
  }

  #release(): void {
    this.#liveness?.cancel();
    this.#qmp?.close();
    this.#saver.close();
    this.#loader.close();
  }
}
