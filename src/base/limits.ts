import { assert } from "./assert.js";

/** Bytes in a page. Every supported guest architecture is run with 4 KiB target pages. */
export const PAGE_BYTES = 4096;

/** Most pages one run may carry as data (raw or lz4): 256 KiB of guest memory. */
export const MAX_RUN_PAGES = 64;

/** Pages the sweep reads, sends and installs at a time while somebody waits for pages, or has not long ago: 64 KiB. */
export const SWEEP_RUN_PAGES = 16;

/** Pages with data in a frame of the sweep while nobody waits, in as many runs as that takes: 512 KiB. */
export const CALM_FRAME_PAGES = 128;

/** Most runs in one frame of pages. */
export const MAX_FRAME_RUNS = 256;

/** Bytes in a frame's fixed header. */
export const FRAME_HEADER_BYTES = 16;

/** Most bytes in a frame's body. A longer one is refused before anything is allocated for it. */
export const MAX_FRAME_BODY_BYTES = 1024 * 1024;

/** Most pages in one request frame. */
export const MAX_REQUEST_PAGES = 512;

/** Pages that one thread of an agent has told the other of and that the other has not seen to; a lane that brings more is ended. */
export const MAX_UNSEEN_PAGES = 65_536;

/** Most runs in one frame that reports or resumes pages received. */
export const MAX_RECEIVED_RUNS = 4096;

/** Most digests in one frame of page hashes, and the bytes of each. */
export const MAX_FRAME_HASHES = 4096;
export const PAGE_HASH_BYTES = 16;

/** Most pages a guest's memory may have: 16 TiB would overflow the u32 page index, 1 TiB is what is allowed. */
export const MAX_MEMORY_PAGES = 1024 * 1024 * 256;

/** Most pages of a guest whose order is remembered, to be sent ahead to its children: 64 MiB of memory. */
export const MAX_WORKING_SET_PAGES = 16_384;

/** Most bytes in one control message (commands, device state, chunks of boot files). */
export const MAX_CONTROL_BYTES = 8 * 1024 * 1024;

/** Bytes the bulk lane may have in flight, sent and not yet credited by the child. */
export const BULK_WINDOW_BYTES = 4 * 1024 * 1024;

/** Bytes of temporary copies one instant may hold before the parent's writers wait. */
export const COPY_BUDGET_BYTES = 64 * 1024 * 1024;

/** Most bytes of a disk that one request for blocks asks for. */
export const MAX_BLOCK_READ_BYTES = 512 * 1024;

/** Most bytes in one run of a disk's content, and most runs in one frame of it. */
export const MAX_BLOCK_RUN_BYTES = 64 * 1024;
export const MAX_BLOCK_RUNS = 64;

/** Most extents in one answer of where a disk has content. */
export const MAX_BLOCK_EXTENTS = 4096;

/** Most requests for blocks that are under way on one lane. */
export const MAX_BLOCK_REQUESTS = 64;

/** Most disks one grant of blocks names. */
export const MAX_BLOCK_DISKS = 256;

/** Most bytes of a disk or of a file that is one: they must stay exact as a number and fit 48 bits. */
export const MAX_BLOCK_DISK_BYTES = 2 ** 47;

/** Most bytes of the sentence that says why blocks cannot be had. */
export const MAX_BLOCK_FAILURE_BYTES = 512;

assert(SWEEP_RUN_PAGES <= MAX_RUN_PAGES, "a sweep run fits in a run");
assert(MAX_RUN_PAGES <= CALM_FRAME_PAGES, "the longest run fits in a frame of the sweep");
assert(
  CALM_FRAME_PAGES * (PAGE_BYTES + 16) + 4 <= MAX_FRAME_BODY_BYTES,
  "what the sweep sends fits in a frame",
);
assert(MAX_FRAME_BODY_BYTES + FRAME_HEADER_BYTES <= BULK_WINDOW_BYTES, "one frame always fits in the window");
assert(4 + MAX_REQUEST_PAGES * 4 <= MAX_FRAME_BODY_BYTES, "a request fits in a frame");
assert(8 + MAX_RECEIVED_RUNS * 8 <= MAX_FRAME_BODY_BYTES, "a report fits in a frame");
assert(8 + MAX_FRAME_HASHES * PAGE_HASH_BYTES <= MAX_FRAME_BODY_BYTES, "hashes fit in a frame");
assert(MAX_RUN_PAGES * PAGE_BYTES <= COPY_BUDGET_BYTES, "a run fits in the copy budget");
assert(MAX_BLOCK_RUNS * MAX_BLOCK_RUN_BYTES >= MAX_BLOCK_READ_BYTES, "what is asked for fits in one answer");
assert(
  8 + MAX_BLOCK_RUNS * 12 + MAX_BLOCK_READ_BYTES <= MAX_FRAME_BODY_BYTES,
  "an answer with content fits in a frame",
);
assert(8 + MAX_BLOCK_EXTENTS * 8 <= MAX_FRAME_BODY_BYTES, "an answer with extents fits in a frame");
assert(MAX_BLOCK_READ_BYTES <= BULK_WINDOW_BYTES, "one request for blocks fits in the window");
