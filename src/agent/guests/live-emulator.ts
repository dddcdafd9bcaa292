import { assert, deferred, messageOf, type Clock, type Log } from "../../base/index.js";
import type { Emulator, EmulatorExit, GuestConfig, Seat } from "../../guest/index.js";
import type { GuestMemory } from "../../memory/index.js";
import { SharedMemory, type Sharing } from "../../transfer/index.js";
import type { GuestIsolation } from "../../control/index.js";
import type { Cell } from "../isolation/isolation.js";
import { isolationOf } from "../isolation/view.js";
import type { BootFileHold } from "../store/boot-store.js";
import { removeGuestMemory } from "../store/guest-memory.js";
import type { Paths } from "../store/paths.js";
import type { Reservation } from "./admission.js";
import { ConsoleHub } from "./console-hub.js";

/** What belongs to one emulator on this host. */
export interface EmulatorParts {
  id: string;
  config: GuestConfig;
  emulator: Emulator;
  memory: GuestMemory;
  seat: Seat;
  reservation: Reservation;
  holds: readonly BootFileHold[];
  cell: Cell;
  paths: Paths;
  clock: Clock;
  log: Log;
}

/**
 * A running emulator and everything this host gives it: memory file, userfaultfd, console, boot files, room. It is one owner for all of them
 * (but for a tap device, which vanishes with the process). When the process has ended, by itself or not, `release` takes them back; the memory file stays readable until then, which lets the children of
 * a parent that died get the pages they still lack.
 */
export class LiveEmulator {
  readonly id: string;
  readonly emulator: Emulator;
  readonly memory: GuestMemory;
  /** The memory as a parent's, which children on this host may share. */
  readonly shared: SharedMemory;
  /** What it shares of another guest's memory; undefined when it shares none. */
  sharing: Sharing | undefined;
  console: ConsoleHub;
  /** Which of the guest's emulators this is. */
  readonly seat: Seat;
  readonly #parts: EmulatorParts;
  readonly #exited = deferred<EmulatorExit>();
  #exit: EmulatorExit | undefined;
  #isolation: GuestIsolation | undefined;
  #released: Promise<void> | undefined;
  #isGone = false;
  /** Whether memory file, room, boot files and cell are its own; of two emulators of one guest they are one's. */
  #isOwner: boolean;

  constructor(parts: EmulatorParts, { isOwner } = { isOwner: true }) {
    this.#parts = parts;
    this.#isOwner = isOwner;
    this.seat = parts.seat;
    this.id = parts.id;
    this.emulator = parts.emulator;
    this.memory = parts.memory;
    const { clock, log } = parts;
    this.shared = new SharedMemory({
      memory: parts.memory.tracked(),
      clock,
      log: log.child({ id: parts.id }),
      onChange: () => this.#returnMemory(),
    });
    this.console = new ConsoleHub(parts.emulator);
    parts.emulator.onExit((exit) => {
      this.#exit = exit;
      this.console.end("the emulator has ended");
      this.#exited.resolve(exit);
    });
  }

  /** What the emulator was started with; a guest that took over a warm one has a configuration of its own. */
  get startedWith(): GuestConfig {
    return this.#parts.config;
  }

  /** What keeps it to itself, read once; undefined when it has ended before. */
  get isolation(): GuestIsolation | undefined {
    this.#isolation ??= isolationOf(this.emulator.pid);
    return this.#isolation;
  }

  /** Resolves when the process has ended, for whatever reason. */
  get exited(): Promise<EmulatorExit> {
    return this.#exited.promise;
  }

  /** How the process ended; undefined while it runs. */
  get exit(): EmulatorExit | undefined {
    return this.#exit;
  }

  /** Ends the emulator at once and takes everything back. May be called twice, and after it ended by itself. */
  async end(): Promise<void> {
    if (this.#exit === undefined) {
      await this.emulator.kill();
    }
    await this.release();
  }

  /**
   * Ends the emulator and takes everything back but the guest's memory: its file stays, and `reservation`, the room for it, is the caller's from here on. Errors as those of `Emulator.kill`.
   */
  async endKeepingMemory(): Promise<void> {
    const { cell, holds } = this.#parts;
    if (this.#exit === undefined) await this.emulator.kill();
    this.#isOwner = false;
    await this.release();
    cell.release();
    for (const hold of holds) hold.letGo();
  }

  /** The room set aside for its memory. */
  get reservation(): Reservation {
    return this.#parts.reservation;
  }

  /** A second emulator of the same guest, which owns nothing yet. */
  beside(parts: Pick<EmulatorParts, "emulator" | "memory" | "seat">): LiveEmulator {
    return new LiveEmulator({ ...this.#parts, ...parts }, { isOwner: false });
  }

  /** Makes what the guest has of this host this emulator's: from here on it goes when this one has ended, and the other one's end leaves it alone. */
  takeOver(other: LiveEmulator): void {
    assert(
      other.#isOwner && !this.#isOwner && other.#released === undefined,
      "one emulator of a guest owns what it has",
    );
    assert(other.shared.sharers === 0, "nobody shares the memory of an emulator that is exchanged");
    other.#isOwner = false;
    this.#isOwner = true;
    // Who follows it, follows on.
    [this.console, other.console] = [other.console, this.console];
    this.console.switchTo(this.emulator);
  }

  /** Takes back what the ended emulator had. May be called twice. */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  /** Lets go of an emulator that is to run on when this agent ends. */
  leave(): void {
    this.shared.detach();
    this.memory.close();
    this.console.end("the agent stops; the guest runs on");
    this.emulator.detach();
  }

  async #release(): Promise<void> {
    const { memory, paths, log, holds, cell } = this.#parts;
    this.console.end("the emulator has ended");
    memory.close();
    if (!this.#isOwner) return;
    try {
      await removeGuestMemory(paths, this.id);
      cell.release();
    } catch (error) {
      log.error(
        { guest: this.id, problem: messageOf(error) },
        "something of an ended emulator could not be removed",
      );
    }
    for (const hold of holds) hold.letGo();
    this.#isGone = true;
    this.#returnMemory();
  }

  /** The room of its memory is there again when nobody has that mapped any more. */
  #returnMemory(): void {
    if (this.#isGone && this.shared.sharers === 0) this.#parts.reservation.release();
  }
}
