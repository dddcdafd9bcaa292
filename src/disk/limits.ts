import { assert } from "../base/index.js";

/** Bytes of a disk that are digested as one. Part of the specification: a change is another digest. */
export const CHUNK_BYTES = 1024 * 1024;

/** What a chunk's digest takes (SHA-256). */
export const CHUNK_DIGEST_BYTES = 32;

/** Emulators see disks as sectors; a disk is whole ones. */
export const SECTOR_BYTES = 512;

/** Most bytes of a disk; its chunk digests, which are held in memory while it is digested, take 128 MiB then. */
export const MAX_DISK_BYTES = 4 * 1024 ** 4;

/** Most layers of a chain, the base disk and the one that is written included. Emulators have the same bound. */
export const MAX_CHAIN_DISKS = 64;

/** Fewest hexadecimal digits of a digest that are taken for one. */
export const MIN_DIGEST_DIGITS = 8;

assert(CHUNK_BYTES % SECTOR_BYTES === 0, "a chunk is whole sectors");
assert(Number.isSafeInteger(MAX_DISK_BYTES), "a disk's size is exact as a number");

/** How long a command of qemu-img that only looks at headers may take. */
export const TOOL_DEADLINE_MS = 60_000;

/** How long one that works through a whole disk may show no progress: it does so for each hundredth of the disk. */
export const TOOL_STALL_MS = 900_000;

/** How long the program may take to end once it has been killed, before it is left to the kernel. */
export const TOOL_END_MS = 5000;

/** Most that is read of what the program writes: to standard output (an answer in JSON), and the last of its errors. */
export const MAX_TOOL_OUTPUT_BYTES = 4 * 1024 * 1024;
export const MAX_TOOL_WORDS = 1000;

/** Address space of the program: what it reads was made by strangers. */
export const TOOL_MEMORY_BYTES = 4 * 1024 ** 3;

/** Guests go ahead of the program. */
export const TOOL_NICENESS = 10;

/** Zeros of this length become holes when a disk is copied. */
export const SPARSE_BYTES = 64 * 1024;

assert(CHUNK_BYTES % SPARSE_BYTES === 0, "a chunk is whole pieces of holes and data");

/** What another host left unfinished and has not touched for so long is removed when images are pruned. */
export const LEFTOVER_MS = 24 * 3600 * 1000;

/** How often something is tried again that another host, which removes or brings the same image at the same time, came between; and how long after. */
export const RACE_ATTEMPTS = 20;
export const RACE_PAUSE_MS = 50;

/** How long an agent that starts waits for the directories of images to be tidied up. */
export const OPEN_DEADLINE_MS = 10_000;

/** Most disks that are looked at in a directory which several hosts have for what guests write. */
export const MAX_SHARED_DISKS = 10_000;
