/**
 * Saves the device state of a running guest in one command, which spares the pause the way of three commands through the emulator's main loop.
 *
 *   agent                                            emulator
 *     xen-save-devices-state, to a pipe ───────────▶ stops the guest
 *   onStopped() ◀──────────────────────────── STOP ─ saves its devices into a buffer
 *                                                    writes the buffer to the pipe, which takes less: waits
 *   atInstant() ◀────────────── the pipe's first byte
 *     the pipe takes more ─────────────────────────▶ is let go on: lets the guest run
 *     ◀───────────────────────────── RESUME, return
 *
 * A running guest is stopped and resumed by the command itself (QEMU, qmp_xen_save_devices_state). Should the agent end meanwhile, the pipe has no reader: the
 * emulator's write fails, and it lets the guest run on.
 *
 * A guest with disks is stopped and resumed by commands of their own, for its disks are frozen between the stop and the saving (`transaction`); all four are sent in a row,
 * and the last one waits in the emulator while that is held up. Should the agent end meanwhile, that one is lost with the connection: the next agent lets the guest run on.
 *
 * The emulator collects what it saves in a buffer and writes that when it is full, and at the end (QEMU, migration/qemu-file.c). It is held up when it writes for the
 * last time: then all devices have been saved, and nothing of that can write to memory any more. So the size of the state must be known, by an earlier saving. Of a state that
 * fits into the buffer the first byte says so, in a pipe that takes less than it. A larger one, of a guest with more than four processors, is given a pipe that
 * takes exactly the full buffers, so that the emulator waits with the rest of it, which is seen from outside.
 */
import { closeSync, constants, fstatSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { codeOf, deferred, DeadlineError, messageOf, withDeadline, type Clock } from "../base/index.js";
import { GuestError } from "./errors.js";
import {
  PAUSE_DEADLINE_MS,
  PAUSE_DEADLINE_MS_PER_MIB,
  SAVE_DEADLINE_MS,
  STOP_DEADLINE_MS,
} from "./limits.js";
import type { PendingFreeze } from "./emulator-disks.js";
import type { QmpClient } from "./qmp.js";
import { saidPath } from "./said-path.js";
import { canSeeWaiting, waitsFor, type WaitsFor } from "./waiting.js";

/** What the emulator collects before it writes (QEMU, IO_BUF_SIZE; the same from version 0.9 to 10). */
const BUFFER_BYTES = 32 * 1024;
/** The least a pipe takes. */
const LEAST_PIPE_BYTES = 4096;
/** What the pipe takes when nobody is to be held up: the most the kernel allows everybody (pipe(7)). */
const OPEN_PIPE_BYTES = 1024 * 1024;
/** States vary by some bytes; one whose size is so near to a bound is not saved so. */
const MARGIN_BYTES = 512;
/** Turns of the event loop after which an event that was sent before the first byte would have been read. */
const TURNS = 3;
/** So many turns an emulator is looked at in each for whether it waits, which takes a small part of a millisecond; then it is every millisecond. */
const HASTY_TURNS = 256;

/** The reading end of a pipe with a name; `memory` has it. */
export interface StatePipe {
  readonly fd: number;
  /** The pipe holds up who writes more than so many bytes. */
  resize(bytes: number): void;
  close(): void;
}

/** Makes a pipe in the file system that its owner may write to. */
export type MakeStatePipe = (path: string, owner: { uid: number; gid: number }) => StatePipe;

/** What is to be done in the pause. */
export interface InPause {
  /** The guest has just stopped; the emulator saves meanwhile. */
  onStopped(): void;
  /** All is saved; the guest runs on as soon as this is done. */
  atInstant(): Promise<void> | void;
}

/** How long the guest of an emulator may be held in a pause, in ms. */
export function pauseDeadlineMs(memoryBytes: number): number {
  return PAUSE_DEADLINE_MS + (PAUSE_DEADLINE_MS_PER_MIB * memoryBytes) / 1024 ** 2;
}

/** Waits for what is done in a pause. @throws GuestError `timeout`, and what the work throws. */
export async function withinPause(
  clock: Clock,
  deadlineMs: number,
  work: Promise<void> | void,
): Promise<void> {
  await within(clock, deadlineMs, "the work in the guest's pause", Promise.resolve(work));
}

/** Holds up the savings of an agent's emulators, and knows from earlier ones how large states are. */
export class HeldSaves {
  readonly #makePipe: MakeStatePipe;
  readonly #waitsFor: WaitsFor;
  readonly #sizes = new Map<string, number>();

  constructor(makePipe: MakeStatePipe, isWaiting = waitsFor) {
    this.#makePipe = makePipe;
    this.#waitsFor = isWaiting;
  }

  /** Notes the size of a state, for those of emulators alike. */
  note(kind: string, stateBytes: number): void {
    this.#sizes.set(kind, stateBytes);
  }

  /** The size of such states is not what it was: the next one is saved in steps, and shows it. */
  forget(kind: string): void {
    this.#sizes.delete(kind);
  }

  /**
   * Prepares to save to the pipe `path`, which is made. Undefined when the size of such a state is not known, or is none that could be held up.
   * Throws what `MakeStatePipe` throws.
   */
  begin(options: {
    kind: string;
    /** The emulator's process. */
    pid: number;
    path: string;
    owner: { uid: number; gid: number };
    /** How long the guest may be held. */
    pauseMs: number;
    clock: Clock;
  }): HeldSave | undefined {
    const { kind, pid, path, owner, pauseMs, clock } = options;
    const fullBuffers = fullBuffersOf(this.#sizes.get(kind));
    if (fullBuffers === undefined || (fullBuffers > 0 && !canSeeWaiting(pid))) return undefined;
    const pipe = this.#makePipe(path, owner);
    const { dev, ino } = fstatSync(pipe.fd);
    const isWaiting = () => this.#waitsFor(pid, { dev, ino });
    return new HeldSave({ pipe, path, said: saidPath(pid, path), fullBuffers, isWaiting, pauseMs, clock });
  }
}

/** Whose failure is noticed by whoever awaits it, if anybody ever does. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** What was thrown, as an error. */
function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(messageOf(thrown));
}

/**
 * How many full buffers of a state of this size are written before the rest of it, which can be held up. Undefined when it cannot: because its size is not known, or so near
 * to a bound that it may be on the other side of it the next time, or because no pipe takes just that many, whose size is a power of two (pipe(7)).
 */
export function fullBuffersOf(stateBytes = 0): number | undefined {
  const full = Math.floor(stateBytes / BUFFER_BYTES);
  const rest = stateBytes % BUFFER_BYTES;
  const least = full === 0 ? LEAST_PIPE_BYTES : 0;
  if (rest <= least + MARGIN_BYTES || rest > BUFFER_BYTES - MARGIN_BYTES) return undefined;
  const isPipe = (full & (full - 1)) === 0 && full * BUFFER_BYTES < OPEN_PIPE_BYTES;
  return isPipe ? full : undefined;
}

interface HeldSaveOptions {
  pipe: StatePipe;
  path: string;
  /** What the emulator knows the pipe by. */
  said: string;
  fullBuffers: number;
  isWaiting: () => boolean;
  pauseMs: number;
  clock: Clock;
}

/** One saving that is held up. */
export class HeldSave {
  readonly #pipe: StatePipe;
  readonly #path: string;
  readonly #said: string;
  readonly #fullBuffers: number;
  readonly #isWaiting: () => boolean;
  readonly #pauseMs: number;
  readonly #clock: Clock;
  #work: InPause | undefined;
  #hasStopped = false;
  #problem: Error | undefined;

  constructor(options: HeldSaveOptions) {
    this.#pipe = options.pipe;
    this.#path = options.path;
    this.#said = options.said;
    this.#fullBuffers = options.fullBuffers;
    this.#isWaiting = options.isWaiting;
    this.#pauseMs = options.pauseMs;
    this.#clock = options.clock;
    this.#pipe.resize(this.#pipeBytes);
  }

  /** To be called at the emulator's STOP event. */
  noteStopped(): void {
    if (this.#work === undefined || this.#hasStopped) return;
    this.#hasStopped = true;
    try {
      this.#work.onStopped();
    } catch (error) {
      this.#problem = asError(error);
    }
  }

  /**
   * Saves, and returns what the emulator wrote when the guest runs on, and whether that was held up when all was saved. What `work` throws is thrown
   * when the guest runs on.
   * @param freeze the command that freezes the guest's disks at the same instant. Stop and resume are commands of their own then, sent in a row with it.
   * @throws GuestError `command-failed`, `gone`; `timeout`: the guest runs on when the emulator gets to it, once the pipe is closed.
   */
  async run(
    qmp: QmpClient,
    work: InPause,
    freeze?: PendingFreeze,
  ): Promise<{ saved: Buffer; isHeld: boolean }> {
    this.#work = work;
    const command = { filename: this.#said, live: false };
    const deadlineMs = STOP_DEADLINE_MS + 2 * SAVE_DEADLINE_MS + this.#pauseMs;
    const send = (name: string, args = {}) => quiet(qmp.execute(name, args, { deadlineMs }));
    const before = freeze === undefined ? [] : [send("stop"), send(freeze.command, freeze.args)];
    const answer = send("xen-save-devices-state", command);
    // Sent now, it is carried out whatever becomes of the others: a guest that was stopped by a command is not let run on by the saving.
    const after = freeze === undefined ? [] : [send("cont")];
    // While the emulator reads the command.
    const first = awaitFirstByte(this.#path);
    try {
      await this.#within(STOP_DEADLINE_MS + SAVE_DEADLINE_MS, Promise.race([first.came, answer]));
      const isHeld = first.byte.length > 0 && (await this.#waits(answer));
      if (isHeld) await this.#hold();
      else this.#letGoOn();
      await this.#within(SAVE_DEADLINE_MS, Promise.all([answer, ...after]));
      await Promise.all(before);
      if (this.#problem !== undefined) throw this.#problem;
      const saved = Buffer.concat([first.byte, ...readAll(this.#pipe.fd)]);
      const isLast = saved.length > this.#pipeBytes && saved.length <= (this.#fullBuffers + 1) * BUFFER_BYTES;
      return { saved, isHeld: isHeld && isLast };
    } finally {
      this.#work = undefined;
      first.end();
    }
  }

  /** Removes the pipe. A saving that still goes on fails, and the guest runs on. May be called twice. */
  close(): void {
    this.#pipe.close();
  }

  /** What the emulator can write before it is held up. */
  get #pipeBytes(): number {
    return this.#fullBuffers === 0 ? LEAST_PIPE_BYTES : this.#fullBuffers * BUFFER_BYTES;
  }

  /** Resolves when the emulator waits with the rest of its state; false when it has answered without. */
  async #waits(answer: Promise<unknown>): Promise<boolean> {
    if (this.#fullBuffers === 0) return true;
    let isOver = false;
    const end = (): void => void (isOver = true);
    answer.then(end, end);
    const untilUs = this.#clock.nowUs() + SAVE_DEADLINE_MS * 1000;
    for (let turn = 0; !isOver && this.#clock.nowUs() < untilUs; turn += 1) {
      // It may have waited for something else on its way; then this state is spoilt, and the next one is saved in steps.
      if (this.#isWaiting()) return isFull(this.#path);
      await new Promise<void>((resolve) =>
        turn < HASTY_TURNS ? this.#clock.soon(resolve) : this.#clock.after(1, resolve),
      );
    }
    return false;
  }

  /** While the emulator waits. Whatever happens, it is let go on, at the latest when the guest has been held for as long as it may be. */
  async #hold(): Promise<void> {
    try {
      // A guest that was not running gives no event.
      for (let turn = 0; turn < TURNS && !this.#hasStopped; turn += 1)
        await new Promise<void>((resolve) => this.#clock.soon(resolve));
      this.noteStopped();
      if (this.#problem === undefined) await withinPause(this.#clock, this.#pauseMs, this.#work?.atInstant());
    } catch (error) {
      this.#problem = asError(error);
    } finally {
      this.#letGoOn();
    }
  }

  #letGoOn(): void {
    this.#pipe.resize(OPEN_PIPE_BYTES);
  }

  #within(deadlineMs: number, work: Promise<unknown>): Promise<void> {
    return within(this.#clock, deadlineMs, "the emulator's saving of its devices", work);
  }
}

async function within(clock: Clock, deadlineMs: number, what: string, work: Promise<unknown>): Promise<void> {
  try {
    await withDeadline(clock, deadlineMs, what, work);
  } catch (error) {
    if (error instanceof DeadlineError) throw new GuestError("timeout", error.message, { cause: error });
    throw error;
  }
}

/**
 * Lets an emulator go on that waits for the reader of a pipe whose agent has ended. Returns what ends that, to be called once the emulator answers.
 */
export function releaseHeld(path: string): () => void {
  try {
    // It is the emulator's to write to; nothing that it writes is of use any more.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    return () => {
      rmSync(path, { force: true });
      closeSync(fd);
    };
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    return () => {};
  }
}

/** Waits for the first byte in a pipe and takes no more than that, so that its page in the pipe stays taken. */
function awaitFirstByte(path: string): { came: Promise<void>; byte: Buffer; end(): void } {
  const buffer = Buffer.alloc(1);
  const came = deferred<void>();
  const first = { came: came.promise, byte: Buffer.alloc(0), end: () => {} };
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const onread = {
    buffer,
    callback(count: number): boolean {
      if (first.byte.length === 0) first.byte = Buffer.from(buffer.subarray(0, count));
      came.resolve();
      return false;
    },
  };
  const options = { fd, readable: true, writable: false, onread };
  const socket = new Socket(options);
  // A pipe that cannot be read is noticed by the deadline.
  socket.on("error", () => {});
  first.end = () => void socket.destroy();
  return first;
}

/** Whether a pipe takes nothing more. What it takes nevertheless is one byte that does not belong there. */
function isFull(path: string): boolean {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    return writeSync(fd, Buffer.alloc(1)) === 0;
  } catch (error) {
    if (codeOf(error) !== "EAGAIN") throw error;
    return true;
  } finally {
    closeSync(fd);
  }
}

/** All that is in a pipe nobody writes to any more. */
function readAll(fd: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let room = OPEN_PIPE_BYTES; room > 0;) {
    const piece = Buffer.allocUnsafe(BUFFER_BYTES);
    const count = readSync(fd, piece);
    if (count === 0) break;
    pieces.push(piece.subarray(0, count));
    room -= count;
  }
  return pieces;
}
