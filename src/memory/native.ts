import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { getSystemErrorName } from "node:util";
import { MemoryError } from "./errors.js";

/** A registration of interest in page faults, as the addon knows it. */
export type Watcher = { readonly watcher: unique symbol };

/**
 * The addon: system calls on explicit descriptors and addresses. Every call returns the kernel's result, or a negative
 * errno. Addresses and lengths are bytes, as numbers. See ioctl_userfaultfd(2), pidfd_getfd(2) and lseek(2).
 */
export interface Native {
  create(device: number): number;
  handshake(fd: number, features: number): number;
  register(fd: number, address: number, length: number, mode: number): number;
  unregister(fd: number, address: number, length: number): number;
  writeProtect(fd: number, address: number, length: number, mode: number): number;
  /**
   * Protects a range in slices of so many bytes on so many threads, 8 at most; then calls back with 0, or a negative errno: some of the range may be protected with that.
   * Returns what cancels it: when that returns, nothing of it is under way. It may be called twice, and after the end.
   */
  protectAside(
    fd: number,
    address: number,
    length: number,
    slice: number,
    threads: number,
    callback: (result: number) => void,
  ): () => void;
  /** May copy fewer bytes than asked for; says how many. */
  copy(fd: number, address: number, offset: number, length: number, bytes: Uint8Array): number;
  /** May zero fewer bytes than asked for; says how many. */
  zeroPage(fd: number, address: number, length: number): number;
  wake(fd: number, address: number, length: number): number;
  openProcess(pid: number): number;
  takeDescriptor(pidfd: number, fd: number): number;
  /** Ends a connection in both directions, whoever else has the socket open. See shutdown(2). */
  shutDown(fd: number): number;
  seek(fd: number, offset: number, hole: number): number;
  /** A descriptor, closed on exec, for a new tap device. */
  openTap(name: string): number;
  /** Makes a hole; the file keeps its length. See fallocate(2). */
  punch(fd: number, offset: number, length: number): number;
  /** Makes a pipe with a name. See mkfifo(3). */
  makePipe(path: string): number;
  /** How much a pipe takes before it holds up who writes. See F_SETPIPE_SZ in fcntl(2). */
  resizePipe(fd: number, bytes: number): number;
  /** Gives a process pages of its own where it maps a file privately; success does not say that there were any to give. At most 1 MiB. See process_vm_writev(2). */
  separate(pid: number, address: number, length: number): number;
  /** Calls back with the number of fault addresses written to `addresses`, or a negative errno and then never again. */
  watch(fd: number, addresses: Float64Array, callback: (result: number) => void): Watcher | number;
  /** No callback from here on. The descriptor may be closed afterwards, not before. */
  unwatch(watcher: Watcher): void;
}

/** Most faults the addon reads in one system call. */
export const MAX_FAULT_BATCH = 256;

/** linux/userfaultfd.h */
export const REGISTER_MISSING = 1;
export const REGISTER_WRITE_PROTECT = 2;
export const PROTECT = 1;
export const UNPROTECT = 0;

/** The kernel's error numbers, positive. */
export const ERRNO = constants.errno;

/** Where the built parts lie, found from this file upwards: it runs from src/ and from dist/. */
function buildDirectory(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json")) && dirname(directory) !== directory) {
    directory = dirname(directory);
  }
  return join(directory, "build", "native");
}

/**
 * The paths of the addon, of the library to preload into emulators, and of the program that transfers are rehearsed on.
 * @throws MemoryError `not-built`.
 */
export function nativePaths(): { addon: string; preload: string; rehearsal: string } {
  const directory = buildDirectory();
  const paths = {
    addon: join(directory, "ramet.node"),
    preload: join(directory, "libramet-preload.so"),
    rehearsal: join(directory, "ramet-rehearsal"),
  };
  for (const path of Object.values(paths)) {
    if (!existsSync(path)) throw new MemoryError("not-built", `${path} is missing; run scripts/build-native`);
  }
  return paths;
}

let loaded: Native | undefined;

/** The addon, loaded once per thread. @throws MemoryError `not-built`. */
export function loadNative(): Native {
  if (loaded !== undefined) return loaded;
  const path = nativePaths().addon;
  try {
    loaded = createRequire(import.meta.url)(path) as Native;
  } catch (cause) {
    throw new MemoryError("not-built", `${path} does not fit this Node.js; run scripts/build-native`, {
      cause,
    });
  }
  return loaded;
}

/** The symbolic name of a negative errno, such as `EEXIST`. */
export function errnoName(result: number): string {
  return getSystemErrorName(result);
}
