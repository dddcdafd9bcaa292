import { assert, MAX_MEMORY_PAGES, PAGE_BYTES } from "../base/index.js";

/** Guest memory is a whole number of these, so that it may lie in 2 MiB pages on any host. */
export const MEMORY_UNIT_BYTES = 2 * 1024 * 1024;

/** Less than this no supported kernel boots in. */
export const MIN_MEMORY_BYTES = 64 * 1024 * 1024;

/**
 * Most memory of a guest: 512 GiB fits in the 40 address bits of the processor model `qemu64` together with what lies above
 * memory; the `virt` machine has room for 255 GiB below its high devices.
 */
export const MAX_MEMORY_BYTES = { x86_64: 512 * 1024 ** 3, aarch64: 255 * 1024 ** 3 } as const;

/** Most processors: what the machines take without an interrupt remapper (x86_64) and with a GICv2 (aarch64). */
export const MAX_CPUS = { x86_64: 64, aarch64: 8 } as const;

/** Longest kernel command line, which Linux's COMMAND_LINE_SIZE (2048 on both architectures) counts with its final zero. */
export const MAX_APPEND_BYTES = 2047;

/** Most disks of a guest. */
export const MAX_DISKS = 8;

/**
 * Most layers of a disk, the base disk and the one that is written included. Each has a file open and takes part in every read of what is not in those above it.
 */
export const MAX_CHAIN_LAYERS = 64;

/** The least a disk's rate may be limited to, in requests or bytes a second: below, a guest only waits. */
export const MIN_DISK_RATE = 10;

/** Longest path of a unix socket (sockaddr_un(7)), without the final zero. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Longest line the emulator may send on its control connection. */
export const MAX_QMP_LINE_BYTES = 1024 * 1024;

/** Deadlines of commands. A device that waits for a page holds up the emulator's main loop, hence the generous ones. */
export const COMMAND_DEADLINE_MS = 10_000;
export const STOP_DEADLINE_MS = 10_000;
export const SAVE_DEADLINE_MS = 10_000;
/** The longest that a guest is held in its pause: some milliseconds of work, but comparing all of its memory takes 2 ms for each MiB, and more on a busy host. */
export const PAUSE_DEADLINE_MS = 10_000;
export const PAUSE_DEADLINE_MS_PER_MIB = 10;
export const LOAD_DEADLINE_MS = 30_000;
export const START_DEADLINE_MS = 15_000;
/** What is to be written to the host's disk first may be much. */
export const FLUSH_DEADLINE_MS = 60_000;
export const QUIT_DEADLINE_MS = 5_000;
export const KILL_DEADLINE_MS = 10_000;
export const PROBE_DEADLINE_MS = 10_000;

/** How often a process is looked for when nothing else tells of its end, and while its end is awaited. */
export const LIVENESS_INTERVAL_MS = 500;
export const EXIT_POLL_MS = 10;

/** How often a connection that is just ending is given time to turn out as the emulator's end. */
export const END_GRACE_POLLS = 50;

/** How often a socket that a starting emulator has yet to open is tried. */
export const CONNECT_RETRY_MS = 5;

/** Most bytes of a device state, composed. Real ones have 0.4 to 0.8 MB. */
export const MAX_DEVICE_STATE_BYTES = 64 * 1024 * 1024;

/** Room kept for the devices when a state is prepared; more works, at the price of one more copy in the pause. */
export const PREPARED_ROOM_BYTES = 512 * 1024;

/** A console or emulator log beyond this is cut back to its last part, so that a guest cannot fill the host's disk. */
export const MAX_LOG_BYTES = 16 * 1024 * 1024;
export const KEPT_LOG_BYTES = 1024 * 1024;
export const LOG_CHECK_INTERVAL_MS = 10_000;

/** How much of the emulator's log is quoted in an error. */
export const QUOTED_LOG_BYTES = 2048;

assert(MAX_MEMORY_BYTES.x86_64 <= MAX_MEMORY_PAGES * PAGE_BYTES, "a guest's pages fit in a page index");
assert(MEMORY_UNIT_BYTES % PAGE_BYTES === 0, "memory is whole pages");
assert(KEPT_LOG_BYTES < MAX_LOG_BYTES, "cutting a log back makes it shorter");
assert(MAX_DISKS <= 10, "a disk's number is one digit, and its slot on the bus is below 32");
