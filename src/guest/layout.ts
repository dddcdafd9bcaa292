import { basename, dirname, join } from "node:path";
import { GuestError } from "./errors.js";
import { MAX_SOCKET_PATH_BYTES } from "./limits.js";

/** A guest has one emulator, or two for a moment, while the second takes over from the first. Each has a directory of its own, by its seat. */
export const SEATS = ["run", "alt"] as const;
export type Seat = (typeof SEATS)[number];

/** The seat that an emulator takes which takes over from the one in this seat. */
export function otherSeat(seat: Seat): Seat {
  return seat === "run" ? "alt" : "run";
}

/**
 * Where the files of one emulator lie. Everything needed to find the emulator again is in its directory. What it makes itself lies in
 * `run` or `alt`, which belongs to its user: nowhere else can it put anything in a file's place, which lets root read and write there.
 */
export interface Layout {
  /** The one directory that is the emulator's own. */
  runDirectory: string;
  /** The control connection. */
  qmpSocket: string;
  /** The serial console. */
  consoleSocket: string;
  /** Where an emulator that waits for a device state takes it. */
  stateSocket: string;
  /** Written by the emulator itself. */
  pidFile: string;
  /** What the guest wrote to its console; like the next one, opened by the agent. */
  consoleLog: string;
  /** What the emulator wrote to its standard output and error. */
  emulatorLog: string;
  /** Where in that log, which the guest's other emulators write as well, the words of one that is started begin. */
  logFrom?: number;
  /** Guest memory, on tmpfs. */
  ramPath: string;
  /** Where the emulator puts a device state in the pause: beside the memory, because a write to tmpfs never waits for a disk. */
  savePath: string;
}

/**
 * The paths of an emulator's files.
 * @throws GuestError `bad-config` when the directory is so deep that a unix socket's path would be too long.
 */
export function layoutOf(options: { directory: string; ramPath: string; seat?: Seat }): Layout {
  const { directory, ramPath, seat = "run" } = options;
  const runDirectory = join(directory, seat);
  const layout: Layout = {
    runDirectory,
    qmpSocket: join(runDirectory, "qmp.sock"),
    consoleSocket: join(runDirectory, "console.sock"),
    stateSocket: join(runDirectory, "state.sock"),
    pidFile: join(runDirectory, "emulator.pid"),
    consoleLog: join(directory, "console.log"),
    emulatorLog: join(directory, "emulator.log"),
    ramPath,
    savePath: join(dirname(ramPath), `${basename(ramPath)}.device-state${seat === "run" ? "" : `-${seat}`}`),
  };
  const longest = Math.max(
    ...[layout.qmpSocket, layout.consoleSocket, layout.stateSocket].map((path) => Buffer.byteLength(path)),
  );
  if (longest > MAX_SOCKET_PATH_BYTES) {
    throw new GuestError(
      "bad-config",
      `the directory ${directory} is too deep: the sockets in it would have paths of ${longest} bytes, and ${MAX_SOCKET_PATH_BYTES} is the most`,
    );
  }
  return layout;
}
