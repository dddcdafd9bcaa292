import { assert } from "../base/index.js";

/** Most bytes of one read. Clients that ask are told, and split what is longer. */
export const MAX_READ_BYTES = 1024 * 1024;

/** Reads of this size and on its borders serve a client best: what comes from another host comes so. */
export const PREFERRED_READ_BYTES = 64 * 1024;

/** Most options of one client before its first request. */
export const MAX_OPTIONS = 64;

/** Most requests of one client that are under way; QEMU sends 16. What it sends beyond waits unread. */
export const MAX_REQUESTS = 64;

/** Most bytes of answers that wait for a client to read them; until it does, nothing more is read of it. */
export const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

/** Most extents in one answer. */
export const MAX_EXTENTS = 4096;

/** Most clients of one export: an emulator has one connection, and a new one when it was lost. */
export const MAX_CLIENTS = 16;

/** From a client's connection to its first request. */
export const NEGOTIATION_DEADLINE_MS = 10_000;

assert(PREFERRED_READ_BYTES <= MAX_READ_BYTES, "a preferred read is allowed");
assert(MAX_READ_BYTES <= MAX_UNREAD_BYTES, "one answer may wait to be read");
