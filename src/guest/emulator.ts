import type { Forward, GuestConfig } from "./config.js";
import type { EmulatorDisks } from "./emulator-disks.js";
import type { InPause } from "./held-save.js";

/** What an emulator is doing: waiting for a device state, running or holding the guest, or at its end. */
export type EmulatorStatus = "incoming" | "running" | "paused" | "ended" | "failed";

/** How an emulator ended. */
export interface EmulatorExit {
  /** `asked`: by quit or kill here. `guest`: the guest switched itself off. `crashed`: anything else. */
  cause: "asked" | "guest" | "crashed";
  /** Whether nobody need worry: any cause but `crashed`. */
  expected: boolean;
  code?: number;
  signal?: string;
  /** The last lines of the emulator's log. */
  lastLog: string;
}

/** Something that happened to the guest: RESET, SHUTDOWN, STOP, RESUME, GUEST_PANICKED and others (QEMU's names). */
export interface GuestEvent {
  name: string;
  data: unknown;
  /** The emulator's wall clock in microseconds since 1970. */
  atUs: number;
}

/** A device state that was saved in the pause. */
export interface SavedDeviceState {
  /** Puts it together for `loadDeviceState` of another emulator, about half a megabyte. Once, and best after the guest runs on. */
  compose(): Uint8Array;
}

/** A device state of a guest that was stopped for it and runs on, with the emulator's own times of both. */
export interface Snapshot extends SavedDeviceState {
  stoppedAtUs: number;
  resumedAtUs: number;
}

/** A person at the guest's serial console. */
export interface Console {
  write(bytes: Uint8Array): void;
  close(): void;
}

/**
 * A guest's emulator. Every call has a deadline of its own. All reject with GuestError: `gone` once the emulator has ended, `timeout`
 * when it does not answer, `command-failed` when it refuses.
 */
export interface Emulator {
  readonly pid: number;
  /** The emulator's version, such as "7.2.22". */
  readonly version: string;
  readonly config: GuestConfig;
  readonly ramPath: string;
  readonly disks: EmulatorDisks;

  /**
   * Makes sure that commands can be given, which an emulator that was found again takes only once it answers: its main loop may wait for a page.
   * It goes on trying by itself when this rejects.
   */
  connect(): Promise<void>;
  status(): Promise<EmulatorStatus>;
  /**
   * Stops processors and devices. `stoppedAtUs` is the emulator's wall clock in microseconds. When the emulator does not answer
   * in time, a resume is queued behind, so that the guest runs on once it can, but not with `forGood`; the call rejects with `timeout`.
   */
  stop(options?: { forGood: boolean }): Promise<{ stoppedAtUs: number }>;
  /** Lets the guest run (on). `resumedAtUs` is on the same clock as `stoppedAtUs`. */
  resume(): Promise<{ resumedAtUs: number }>;
  /**
   * Does, while the guest runs, what saving its device state would otherwise do in the pause. Call it just before `stop`, which
   * then sends the saving along, so that it runs while the caller does what else there is to do in the pause.
   * With `ahead`, nothing need follow: only what lasts as long as the emulator is done, and the next call has the less to do.
   * @returns the first part of the state, by far the largest, which cannot change any more: what `compose` gives begins with it.
   */
  prepareDeviceState(options?: { handOver: boolean; ahead?: boolean }): Promise<Uint8Array>;
  /** Forgets what was prepared, for a guest that is not to be stopped after all. */
  forgetDeviceState(): void;
  /**
   * Stops a running guest, saves its state and lets it run on, in as short a pause as this emulator can; `prepareDeviceState` first. When it rejects, also with
   * what `work` throws, the guest may stand still: `resume` it.
   */
  snapshot(work: InPause): Promise<Snapshot>;
  /** Saves the state of a stopped guest. */
  saveDeviceState(options: { handOver: boolean }): Promise<SavedDeviceState>;
  /** Gives an emulator that was started with `incoming` the first part of a device state; `loadDeviceState` then takes the rest. Errors as that one's. */
  beginDeviceState(head: Uint8Array): Promise<void>;
  /**
   * Loads a device state into an emulator that was started with `incoming`; the guest stays stopped, or with `run` runs as soon as that is done. Guest memory is touched meanwhile
   * (rings of network and random numbers, the generation id): whoever fills it must serve faults from the start.
   * When it fails, the emulator is ended: a half-loaded guest is of no use. Rejects with `load-failed` or `bad-device-state`.
   */
  loadDeviceState(state: Uint8Array, options?: { deadlineMs?: number; run?: boolean }): Promise<void>;

  addForward(forward: Forward): Promise<void>;
  removeForward(forward: Forward): Promise<void>;
  /** Makes the guest's network address known to switches, after it has moved to another host. */
  announce(): Promise<void>;
  /** Presses the guest's power button; whether and when it obeys is its own affair. */
  powerDown(): Promise<void>;
  /** Ends the emulator, by force when it does not end by itself. Resolves when its process is gone; may be called twice. */
  quit(): Promise<void>;
  /** Ends the emulator at once. Resolves when its process is gone; may be called twice. */
  kill(): Promise<void>;

  /** Opens the serial console; one at a time (`busy`). What the guest wrote before is in console.log. */
  openConsole(handlers: { onData(bytes: Uint8Array): void; onEnd(): void }): Promise<Console>;
  onGuestEvent(handler: (event: GuestEvent) => void): void;
  /** Calls the handler once, when the process has ended; at once when it already has. */
  onExit(handler: (exit: EmulatorExit) => void): void;
  /** Lets go of the emulator, which runs on; another agent can adopt it. No handler is called afterwards. */
  detach(): void;
}
