import { closeSync, readdirSync, readlinkSync } from "node:fs";
import { codeOf } from "../base/index.js";
import { MemoryError } from "./errors.js";
import { ERRNO, errnoName, loadNative } from "./native.js";

/** The preloaded library keeps its descriptor at this number or the next free one above it; see native/preload.c. */
const FIRST_RESERVED_DESCRIPTOR = 200;

/** What /proc/PID/fd shows for a userfaultfd. */
const USERFAULTFD_LINK = "anon_inode:[userfaultfd]";

function isUserfault(pid: number, fd: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`) === USERFAULTFD_LINK;
  } catch {
    return false; // closed since the directory was read
  }
}

/** The number of the descriptor the preloaded library keeps in process `pid`. */
function findUserfault(pid: number): number {
  let numbers: number[];
  try {
    numbers = readdirSync(`/proc/${pid}/fd`).map(Number);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ESRCH")
      throw new MemoryError("gone", `process ${pid} has ended`, { cause });
    throw new MemoryError("not-permitted", `cannot read /proc/${pid}/fd (${code}); run the agent as root`, {
      cause,
    });
  }
  const reserved = numbers.filter((fd) => fd >= FIRST_RESERVED_DESCRIPTOR).sort((one, other) => one - other);
  const found = reserved.find((fd) => isUserfault(pid, fd));
  if (found !== undefined) return found;
  throw new MemoryError("no-userfaultfd", `process ${pid} was not started under Ramet's preloaded library`);
}

/**
 * A descriptor of this process for what is open as `fd` in process `pid` (pidfd_getfd(2)). The caller closes it. Needs Linux 5.6 and the right to trace the
 * process (root has it).
 * @throws MemoryError `gone`, `not-permitted` or `failed`.
 */
export function takeDescriptor(pid: number, fd: number): number {
  return takeNumbered(pid, () => fd, "descriptor");
}

/**
 * A descriptor of this process for the userfaultfd of emulator `pid`, whether this agent started it or finds it running.
 * The caller closes it. Needs Linux 5.6 and the right to trace the process (root has it).
 * @throws MemoryError `gone`, `no-userfaultfd`, `not-permitted` or `failed`.
 */
export function takeUserfault(pid: number): number {
  return takeNumbered(pid, () => findUserfault(pid), "userfaultfd");
}

function takeNumbered(pid: number, find: () => number, what: string): number {
  const native = loadNative();
  const pidfd = native.openProcess(pid);
  if (pidfd === -ERRNO.ESRCH) throw new MemoryError("gone", `process ${pid} has ended`);
  if (pidfd < 0) throw new MemoryError("failed", `cannot open process ${pid} (${errnoName(pidfd)})`);
  try {
    const fd = native.takeDescriptor(pidfd, find());
    if (fd >= 0) return fd;
    const name = errnoName(fd);
    if (name === "ESRCH") throw new MemoryError("gone", `process ${pid} has ended`);
    if (name === "EPERM") {
      throw new MemoryError(
        "not-permitted",
        `may not take the ${what} of process ${pid}; run the agent as root`,
      );
    }
    throw new MemoryError("failed", `cannot take the ${what} of process ${pid} (${name})`);
  } finally {
    closeSync(pidfd);
  }
}
