import { closeSync, constants, openSync, readFileSync } from "node:fs";
import { assert, codeOf } from "../base/index.js";
import { MemoryError } from "./errors.js";
import { errnoName, loadNative, nativePaths } from "./native.js";

const DEVICE_PATH = "/dev/userfaultfd";
const UNPRIVILEGED_PATH = "/proc/sys/vm/unprivileged_userfaultfd";

/** linux/userfaultfd.h: what Ramet needs beyond the first version. The preloaded library asks for the same. */
const FEATURES_NEEDED =
  (1 << 0) | // UFFD_FEATURE_PAGEFAULT_FLAG_WP
  (1 << 5) | // UFFD_FEATURE_MISSING_SHMEM
  (1 << 12); // UFFD_FEATURE_WP_HUGETLBFS_SHMEM: write protection of tmpfs memory, Linux 5.19

function mayCreateWithoutDevice(): boolean {
  if (process.geteuid?.() === 0) return true;
  try {
    return readFileSync(UNPRIVILEGED_PATH, "utf8").trim() === "1";
  } catch {
    return false;
  }
}

/**
 * Opens what an emulator inherits to create its userfaultfd from, so that the emulator itself needs no privileges. One is
 * enough for any number of emulators; the caller closes it. Kernels before 6.1 have no /dev/userfaultfd: then it is a
 * descriptor that leads to nothing, and the preloaded library makes the system call instead, which needs privileges.
 * @throws MemoryError `not-permitted` or `unsupported`.
 */
export function openUserfaultDevice(): number {
  try {
    return openSync(DEVICE_PATH, constants.O_RDWR);
  } catch (cause) {
    const code = codeOf(cause);
    if (code !== "ENOENT" && code !== "ENXIO") {
      throw new MemoryError("not-permitted", `cannot open ${DEVICE_PATH} (${code}); run the agent as root`, {
        cause,
      });
    }
  }
  if (mayCreateWithoutDevice()) return openSync("/dev/null", constants.O_RDWR);
  throw new MemoryError(
    "unsupported",
    `${DEVICE_PATH} is missing; Linux 6.1 with CONFIG_USERFAULTFD has it, an older one needs an agent that runs as root`,
  );
}

/**
 * The environment an emulator is started with, beside its own.
 * @param fdNumber the number under which the emulator's process inherits the descriptor of `openUserfaultDevice`.
 * @param memory the number under which it inherits the memory file of another guest, open for reading, and the path by which it opens that.
 * @throws MemoryError `not-built`.
 */
export function preloadEnvironment(
  fdNumber: number,
  memory?: { fdNumber: number; path: string },
): Record<string, string> {
  for (const number of [fdNumber, memory?.fdNumber ?? fdNumber])
    assert(Number.isSafeInteger(number) && number > 2, `an inherited descriptor is above 2, not ${number}`);
  return {
    LD_PRELOAD: nativePaths().preload,
    RAMET_USERFAULTFD: String(fdNumber),
    ...(memory === undefined ? {} : { RAMET_MEMORY: `${memory.fdNumber}:${memory.path}` }),
  };
}

/**
 * Says whether this machine can fork guests at all, by making a userfaultfd and asking for what is needed.
 * @throws MemoryError `not-built`, `not-permitted` or `unsupported`.
 */
export function checkKernel(): void {
  const native = loadNative();
  const device = openUserfaultDevice();
  try {
    const fd = native.create(device);
    if (fd < 0)
      throw new MemoryError("not-permitted", `cannot create a userfaultfd (${errnoName(fd)}); run as root`);
    try {
      const result = native.handshake(fd, FEATURES_NEEDED);
      if (result < 0) {
        throw new MemoryError(
          "unsupported",
          `the kernel cannot write-protect shared memory (${errnoName(result)}); Linux 5.19 or newer can (on Arm 6.10)`,
        );
      }
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(device);
  }
}
