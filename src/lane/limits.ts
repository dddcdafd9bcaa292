import { assert, FRAME_HEADER_BYTES, MAX_CONTROL_BYTES, MAX_FRAME_BODY_BYTES } from "../base/index.js";

/** Most bytes in one message on a page lane: one whole frame. */
export const MAX_LANE_MESSAGE_BYTES = FRAME_HEADER_BYTES + MAX_FRAME_BODY_BYTES;

/** A listener gives a connection this long from its acceptance to the end of the handshake. */
export const HANDSHAKE_DEADLINE_MS = 5000;

/** Most bytes in one handshake message, and from the upgrade to the end of the handshake together. */
export const MAX_HANDSHAKE_MESSAGE_BYTES = 4096;
export const MAX_HANDSHAKE_BYTES = 16 * 1024;

/** Most bytes of an HTTP request's head. */
export const MAX_REQUEST_HEAD_BYTES = 8 * 1024;

/** Most connections of one listener that have not ended their handshake. For one more, the oldest is dropped. */
export const MAX_HALF_OPEN = 64;

/** Most connections of one listener altogether. */
export const MAX_CONNECTIONS = 1024;

/** How often a side pings, and how long it may hear nothing before it takes the connection for dead. */
export const PING_INTERVAL_MS = 10_000;
export const DEAD_AFTER_MS = 30_000;

/** How often certificates, keys and lists of revoked certificates are looked at for changes. */
export const CREDENTIALS_POLL_MS = 3000;

/** How long the other side has to answer a close before the socket is destroyed. */
export const CLOSE_DEADLINE_MS = 1000;

/** Most frames kept for an owner who has not attached yet. The socket is paused meanwhile, so only one read's worth can come. */
export const MAX_EARLY_FRAMES = 4096;

/** Most bytes that may wait for a peer that does not read. Bulk is bounded by its window; this bounds everything else. */
export const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

/** Most bytes of a unix socket's path (`sun_path` has 108, its end included: unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Most bytes of the text in a WebSocket close frame (RFC 6455, 5.5). */
export const MAX_CLOSE_REASON_BYTES = 123;

assert(MAX_HANDSHAKE_MESSAGE_BYTES < MAX_LANE_MESSAGE_BYTES, "a handshake message fits in a message");
assert(3 * MAX_HANDSHAKE_MESSAGE_BYTES <= MAX_HANDSHAKE_BYTES, "a handshake fits in its bound");
assert(2 * PING_INTERVAL_MS < DEAD_AFTER_MS, "a dead connection has missed two pings");
assert(MAX_CONTROL_BYTES < MAX_QUEUED_BYTES, "the longest message may wait");
