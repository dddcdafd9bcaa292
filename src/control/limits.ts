import { MAX_CONTROL_BYTES, assert } from "../base/index.js";

/** Most bytes in one request of a client. Commands are small; only console input comes in quantity. */
export const MAX_CLIENT_REQUEST_BYTES = 256 * 1024;

/** Most requests one client, and one peer, may have unanswered. One more is answered `busy` at once. */
export const MAX_CLIENT_PENDING = 64;
export const MAX_PEER_PENDING = 16;

/** Most values (map entries' keys and values, array elements) in one request, and in one reply or event. */
export const MAX_REQUEST_VALUES = 4096;
export const MAX_REPLY_VALUES = 256 * 1024;

/** Most maps and arrays inside one another. */
export const MAX_DEPTH = 16;

/** Bytes of events a connection may have waiting in its socket. Events after that are dropped and counted. */
export const EVENT_BACKLOG_BYTES = 1024 * 1024;

/** Bytes of replies and events a connection may have waiting. A client that lets more pile up is cut off. */
export const REPLY_BACKLOG_BYTES = 2 * MAX_CONTROL_BYTES;

/** How often a client that lost events is looked at, to tell it once it reads again. */
export const LAGGED_RETRY_MS = 250;

/** Most bytes in a chunk of a boot file, of console data, and in the device state of one guest. */
export const MAX_FILE_CHUNK_BYTES = 1024 * 1024;
/** Bits of one message about lacking pages: those of 16 GiB of memory. */
export const MAX_LACKS_BYTES = 512 * 1024;
export const MAX_CONSOLE_BYTES = 64 * 1024;
export const MAX_DEVICE_STATE_BYTES = MAX_CONTROL_BYTES - 4096;

/** Most children of one fork, and most hosts one command may name. */
export const MAX_CHILDREN = 64;

/** Most forwarded ports of a guest. */
export const MAX_FORWARDS = 32;

/** Most disks of a guest, and most layers of one. */
export const MAX_GUEST_DISKS = 8;
export const MAX_CHAIN_LAYERS = 64;

/** Disks of a guest. */
export const MAX_DISKS = 8;

/** Most guests, disks, transfers and peers in one answer. */
export const MAX_LISTED = 2048;

/** Most guests that are exchanged at a time when all of a host are: each has a second emulator then. */
export const MAX_PARALLEL_EXCHANGES = 16;
export const DEFAULT_PARALLEL_EXCHANGES = 2;

/** Longest time an exchange of all guests may wait for one that is busy. */
export const MAX_EXCHANGE_WAIT_MS = 24 * 3_600_000;
export const DEFAULT_EXCHANGE_WAIT_MS = 600_000;

/** Most lines of a log in one answer, and most characters of each. */
export const MAX_LOG_LINES = 5000;
export const MAX_LOG_LINE_CHARACTERS = 1024;

/** Most characters in a message for people. Longer ones are cut. */
export const MAX_MESSAGE_CHARACTERS = 1024;

assert(MAX_CLIENT_REQUEST_BYTES <= MAX_CONTROL_BYTES, "a client's request fits in a control message");
assert(MAX_CONSOLE_BYTES < MAX_CLIENT_REQUEST_BYTES, "console input fits in a request");
assert(MAX_FILE_CHUNK_BYTES < MAX_CONTROL_BYTES, "a chunk of a boot file fits in a control message");
assert(EVENT_BACKLOG_BYTES < REPLY_BACKLOG_BYTES, "events are dropped before a client is cut off");
// A log line may take four bytes for each character.
assert(MAX_LOG_LINES * MAX_LOG_LINE_CHARACTERS < MAX_CONTROL_BYTES, "a log of plain text fits in an answer");

/** Longest time a client may ask to wait for a child that is out of reach: 24 days, what a timer can count. */
export const MAX_LINK_DEADLINE_MS = 24 * 86_400_000;
