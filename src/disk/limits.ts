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
