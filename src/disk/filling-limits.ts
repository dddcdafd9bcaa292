import { assert } from "../base/index.js";
import { CHUNK_BYTES } from "./limits.js";
import { MAX_READ_BYTES, PREFERRED_READ_BYTES } from "./nbd-limits.js";

/** A disk under way is here or missing by blocks of this size; what a guest waits for comes as one. */
export const BLOCK_BYTES = PREFERRED_READ_BYTES;

/** Blocks of one read of the sweep, and how many of these are under way: together the bytes of a bulk lane's window. */
export const SWEEP_READ_BLOCKS = 8;
export const SWEEP_READS = 8;

/** How far ahead the sweep asks where there is content at all. */
export const MAP_BYTES = 1024 * 1024 * 1024;

/** How long what has come may stay unnoted: after a crash, so much comes again. */
export const NOTE_EVERY_MS = 1000;

/** How often a full file system is tried again. */
export const ROOM_RETRY_MS = 2000;

assert(CHUNK_BYTES % BLOCK_BYTES === 0, "a chunk is whole blocks");
assert(SWEEP_READ_BLOCKS * BLOCK_BYTES <= MAX_READ_BYTES, "the sweep reads no more at once than anybody may");
assert(MAP_BYTES % BLOCK_BYTES === 0, "the sweep asks for whole blocks");
