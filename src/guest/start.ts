import { chownSync, closeSync, constants, fchownSync, mkdirSync, openSync, readSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, sleep, type Clock, type Log } from "../base/index.js";
import { commandLine } from "./command-line.js";
import { checkHost, type GuestConfig } from "./config.js";
import type { Emulator } from "./emulator.js";
import { acceleratorGroups, confinedCommand, prepareRoot, type Confinement } from "./confinement.js";
import { GuestError } from "./errors.js";
import type { HeldSaves } from "./held-save.js";
import { layoutOf, type Layout, type Seat } from "./layout.js";
import {
  COMMAND_DEADLINE_MS,
  CONNECT_RETRY_MS,
  EXIT_POLL_MS,
  KILL_DEADLINE_MS,
  QUOTED_LOG_BYTES,
  START_DEADLINE_MS,
} from "./limits.js";
import { sizeOf, tailOf } from "./logs.js";
import { connectTap } from "./network.js";
import {
  argumentsOf,
  identifyProcess,
  isAlive,
  signalProcess,
  startDetached,
  waitForEnd,
  type ProcessEnd,
  type ProcessIdentity,
} from "./process.js";
import { checkMachine, probeEmulator } from "./probe.js";
import { QemuEmulator } from "./qemu-emulator.js";

/** How often an exit code is looked for once a process has ended. */
const EXIT_POLLS = 20;

/** The number of the first descriptor a program inherits besides the usual three. */
const FIRST_INHERITED = 3;

/** Longest pid file that is read. */
const MAX_PID_BYTES = 32;

/** Where an emulator's files lie, and what it needs to be found again. */
export interface EmulatorPlace {
  config: GuestConfig;
  /** The guest's own directory, which must exist and be readable by nobody else. */
  directory: string;
  /** The file of guest memory, on tmpfs. Made when missing; removed by the caller, who knows when nobody needs it. */
  ramPath: string;
  /** Which of the guest's emulators; `run` when absent. */
  seat?: Seat;
  /** Holds up its savings, for shorter pauses. */
  heldSaves?: HeldSaves;
  clock: Clock;
  log: Log;
}

/** What a new emulator needs besides. */
export interface StartOptions extends EmulatorPlace {
  /** Whether it waits for a device state (`loadDeviceState`) instead of booting when it is resumed. */
  incoming: boolean;
  /** Its whole environment. */
  environment?: Readonly<Record<string, string>>;
  /** Descriptors it inherits, as 3, 4, … */
  descriptors?: readonly number[];
  /** A descriptor of this process for the guest's tap device, which the emulator inherits too. The caller closes it. */
  tap?: number;
  /** It maps its memory privately: what it opens under the name of its memory file is another guest's, which it inherits. No file is made. */
  privateMemory?: boolean;
  /** How the emulator is kept to itself; without, it runs as whoever runs this process. */
  confinement?: Confinement;
  /** Another emulator than the installed one, and where that finds its firmware. */
  binary?: string;
  dataDirectories?: readonly string[];
}

/**
 * Starts an emulator, which then holds its guest stopped until `resume`. The process outlives this one. When it fails, no process is
 * left, nor a memory file that was not there before.
 * @throws GuestError `missing-file`, `bad-config`, `not-installed`, `unsupported-machine`, `start-failed` with the emulator's last words,
 *   `network-failed`, `timeout`.
 */
export async function startEmulator(options: StartOptions): Promise<Emulator> {
  const { config, clock } = options;
  checkHost(config);
  const probe = await probeEmulator(
    config.architecture,
    options.binary === undefined ? {} : { binary: options.binary },
  );
  checkMachine(config.machine, probe);
  const place = layoutOf(options);
  const logFrom = sizeOf(place.emulatorLog);
  const layout = { ...place, logFrom };
  for (const path of [layout.qmpSocket, layout.consoleSocket, layout.stateSocket])
    rmSync(path, { force: true });
  makeRunDirectory(layout, options.confinement);
  const isNewMemory = options.privateMemory !== true && createMemoryFile(layout, options.confinement);
  let processEnd: ProcessEnd | undefined;
  let emulator: QemuEmulator | undefined;
  let identity: ProcessIdentity | undefined;
  try {
    identity = await startProcess(options, {
      layout,
      binary: probe.binary,
      onEnd(end) {
        processEnd = end;
        emulator?.noteProcessEnd(end);
      },
    });
    emulator = new QemuEmulator({ ...options, layout, identity, isOwnProcess: true });
    await connectWhenReady(emulator, { identity, clock });
    await connectTap(config.network);
    await emulator.disks.limit(config.disks);
    if (options.incoming) await emulator.expectDeviceState();
    return emulator;
  } catch (error) {
    emulator?.detach();
    const hasHung = identity !== undefined && isAlive(identity);
    if (identity !== undefined) await endProcess(identity, clock);
    // The exit code comes a moment after the end.
    for (let poll = 0; poll < EXIT_POLLS && identity !== undefined && processEnd === undefined; poll += 1) {
      await sleep(clock, EXIT_POLL_MS);
    }
    if (isNewMemory) rmSync(layout.ramPath, { force: true });
    throw startError({
      error,
      words: tailOf(layout.emulatorLog, QUOTED_LOG_BYTES, logFrom),
      processEnd: hasHung ? undefined : processEnd,
      binary: probe.binary,
    });
  }
}

/** Starts the process itself, which inherits the console's log besides what it is given. */
async function startProcess(
  options: StartOptions,
  how: { layout: Layout; binary: string; onEnd(end: ProcessEnd): void },
): Promise<ProcessIdentity> {
  const { clock, confinement } = options;
  const { layout } = how;
  const consoleLog = openSync(layout.consoleLog, "a", 0o600);
  try {
    const given = options.descriptors ?? [];
    const consoleNumber = FIRST_INHERITED + given.length;
    const tap = options.tap === undefined ? [] : [options.tap];
    const inherited = {
      consoleLog: consoleNumber,
      tap: tap.length === 0 ? undefined : consoleNumber + 1,
    };
    const command = {
      binary: how.binary,
      args: commandLine({ ...options, layout, inherited }),
      environment: options.environment ?? {},
    };
    const directory = dirname(layout.savePath);
    return await startDetached({
      ...(confinement === undefined
        ? { ...command, directory }
        : confine({ ...options, confinement }, { ...command, layout, directory })),
      descriptors: [...given, consoleLog, ...tap],
      logPath: layout.emulatorLog,
      clock,
      deadlineMs: START_DEADLINE_MS,
      onEnd: how.onEnd,
    });
  } finally {
    closeSync(consoleLog);
  }
}

/** Makes the emulator's view of the host, and the command that starts it there. */
function confine(
  options: StartOptions & { confinement: Confinement },
  command: {
    layout: Layout;
    directory: string;
    binary: string;
    args: string[];
    environment: Readonly<Record<string, string>>;
  },
): ReturnType<typeof confinedCommand> {
  const { config, dataDirectories = [] } = options;
  const { layout, ...rest } = command;
  const readOnly = [...options.confinement.readOnly, ...dataDirectories];
  if (config.kernel !== undefined) readOnly.push(config.kernel);
  if (config.initrd !== undefined) readOnly.push(config.initrd);
  // One that is not installed brings its libraries along.
  if (!rest.binary.startsWith("/usr/")) readOnly.push(dirname(rest.binary));
  const confinement = { ...options.confinement, readOnly };
  const mounts = prepareRoot({
    confinement,
    writable: [layout.runDirectory, dirname(layout.ramPath), ...(options.confinement.writable ?? [])],
    accelerator: config.accelerator,
  });
  return confinedCommand({
    ...rest,
    confinement,
    mounts,
    sharesNetwork: config.network.mode === "user",
    groups: acceleratorGroups(config.accelerator),
  });
}

/**
 * Finds the emulator of a guest again, without a word to it: it may not answer before the pages it waits for are there. `connect` of what is returned
 * makes it take commands; its end is noticed from now on.
 * @returns undefined when it has ended.
 */
export function locateEmulator(options: EmulatorPlace): Emulator | undefined {
  const layout = layoutOf(options);
  const identity = findProcess(layout);
  if (identity === undefined) return undefined;
  const emulator = new QemuEmulator({ ...options, layout, identity, isOwnProcess: false });
  emulator.watch();
  return emulator;
}

/**
 * Finds the emulator of a guest again, after the agent was restarted. Whether it runs is told by its own pid file and command line.
 * @returns undefined when it has ended.
 * @throws GuestError `timeout`, `gone`, `protocol` when it lives but cannot be commanded; `endLeftover` ends it.
 */
export async function adoptEmulator(options: EmulatorPlace): Promise<Emulator | undefined> {
  const { clock } = options;
  const layout = layoutOf(options);
  const identity = findProcess(layout);
  if (identity === undefined) return undefined;
  const emulator = new QemuEmulator({ ...options, layout, identity, isOwnProcess: false });
  try {
    await connectWhenReady(emulator, { identity, clock });
    return emulator;
  } catch (error) {
    emulator.detach();
    throw error;
  }
}

/**
 * Ends whatever emulator still runs in a directory, and removes its sockets. Does nothing when there is none.
 * @throws GuestError `timeout`.
 */
export async function endLeftover(options: {
  directory: string;
  ramPath: string;
  seat?: Seat;
  clock: Clock;
}): Promise<void> {
  const layout = layoutOf(options);
  const identity = findProcess(layout);
  if (identity !== undefined) await endProcess(identity, options.clock);
  const { qmpSocket, consoleSocket, stateSocket, pidFile, savePath } = layout;
  for (const path of [qmpSocket, consoleSocket, stateSocket, pidFile, savePath])
    rmSync(path, { force: true });
}

function findProcess(layout: Layout): ProcessIdentity | undefined {
  const pid = readPid(layout.pidFile);
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  const identity = identifyProcess(pid);
  // The pid may have been used again, even by another emulator; this emulator's command line names its pid file.
  return argumentsOf(pid).includes(layout.pidFile) ? identity : undefined;
}

/** The number in a pid file, else NaN. The file is the emulator's own, which may have put something else in its place. */
function readPid(path: string): number {
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const bytes = Buffer.alloc(MAX_PID_BYTES);
      return Number.parseInt(bytes.toString("latin1", 0, readSync(file, bytes)), 10);
    } finally {
      closeSync(file);
    }
  } catch {
    return Number.NaN;
  }
}

function makeRunDirectory(layout: Layout, confinement: Confinement | undefined): void {
  mkdirSync(layout.runDirectory, { recursive: true, mode: 0o700 });
  if (confinement !== undefined) chownSync(layout.runDirectory, confinement.uid, confinement.uid);
}

/** The emulator would make the file itself, but readable by everybody. */
function createMemoryFile(layout: Layout, confinement: Confinement | undefined): boolean {
  try {
    const file = openSync(layout.ramPath, "wx", 0o600);
    if (confinement !== undefined) fchownSync(file, confinement.uid, confinement.uid);
    closeSync(file);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw new GuestError(
      "start-failed",
      `the memory file ${layout.ramPath} cannot be made: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

async function connectWhenReady(
  emulator: QemuEmulator,
  options: { identity: ProcessIdentity; clock: Clock },
): Promise<void> {
  const { identity, clock } = options;
  const untilUs = clock.nowUs() + START_DEADLINE_MS * 1000;
  for (;;) {
    try {
      return await emulator.connect(COMMAND_DEADLINE_MS);
    } catch (error) {
      // Its socket is not there yet, or it has ended.
      const isEarly = error instanceof GuestError && error.code === "gone";
      if (!isEarly || !isAlive(identity) || clock.nowUs() > untilUs) throw error;
      await sleep(clock, CONNECT_RETRY_MS);
    }
  }
}

async function endProcess(identity: ProcessIdentity, clock: Clock): Promise<void> {
  signalProcess(identity, "SIGKILL");
  await waitForEnd(identity, { clock, deadlineMs: KILL_DEADLINE_MS });
}

function startError(options: {
  error: unknown;
  /** What it has said. */
  words: string;
  /** How it ended by itself; undefined when it did not. */
  processEnd: ProcessEnd | undefined;
  binary: string;
}): GuestError {
  const { error, words, processEnd, binary } = options;
  if (error instanceof GuestError && error.code !== "gone") return error;
  const how =
    processEnd === undefined
      ? `it takes no command after ${START_DEADLINE_MS / 1000} s`
      : `it ended with ${processEnd.signal ?? `code ${processEnd.code ?? "unknown"}`}`;
  const said = words === "" ? "" : `; it says: ${words}`;
  return new GuestError("start-failed", `the emulator ${binary} did not start: ${how}${said}`, {
    cause: error,
  });
}
