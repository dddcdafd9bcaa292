/** The numbers of the NBD protocol that this side knows, and how what it says is written. See doc/proto.md of the NBD project. */

import { assert } from "../base/index.js";
import type { BlockExtent } from "./block-source.js";

/** `NBDMAGIC`, then `IHAVEOPT`, which also begins each option of a client. */
const INIT_MAGIC = Buffer.from("NBDMAGIC", "latin1");
export const OPTION_MAGIC = Buffer.from("IHAVEOPT", "latin1");
const OPTION_REPLY_MAGIC = Buffer.from("0003e889045565a9", "hex");
export const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const CHUNK_MAGIC = 0x668e33ef;

/** Handshake flags, the same bits on both sides. */
export const FIXED_NEWSTYLE = 1;
export const NO_ZEROES = 2;

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

const ERROR_BIT = 0x80000000;
export const REPLY = {
  ack: 1,
  info: 3,
  metaContext: 4,
  unsupported: ERROR_BIT + 1,
  policy: ERROR_BIT + 2,
  invalid: ERROR_BIT + 3,
  unknown: ERROR_BIT + 6,
} as const;

const INFO = { export: 0, blockSize: 3 } as const;

/** Transmission flags: there are some, read only, reads of one piece on demand, and several connections see the same. */
const TRANSMISSION_FLAGS = 1 | 2 | 128 | 256;

export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const;
/** Command flags: write through (which means nothing to a reader), in one piece, one extent only. */
export const COMMAND_FLAG = { fua: 1, dontFragment: 4, requireOne: 8 } as const;

export const NBD_ERROR = { permission: 1, io: 5, invalid: 22 } as const;

const CHUNK = { none: 0, data: 1, hole: 2, blockStatus: 5, error: 0x8001 } as const;
const CHUNK_DONE = 1;
const HOLE_AND_ZERO = 1 | 2;

/** The one metadata context, and its number in answers. */
export const ALLOCATION_CONTEXT = "base:allocation";
export const ALLOCATION_ID = 1;

const OPTION_REPLY_BYTES = 20;
const CHUNK_BYTES = 20;
const SIMPLE_REPLY_BYTES = 16;
const OFFSET_BYTES = 8;
const EXPORT_NAME_PADDING = 124;

export const GREETING = Buffer.concat([
  INIT_MAGIC,
  OPTION_MAGIC,
  Buffer.from([0, FIXED_NEWSTYLE | NO_ZEROES]),
]);

/** Answers an option. */
export function optionReply(option: number, reply: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(OPTION_REPLY_BYTES);
  OPTION_REPLY_MAGIC.copy(head);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(reply, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

/** The answer to `EXPORT_NAME`, after which requests follow. */
export function exportNameReply(sizeBytes: number, options: { padded: boolean }): Buffer {
  const bytes = Buffer.alloc(10 + (options.padded ? EXPORT_NAME_PADDING : 0));
  bytes.writeBigUInt64BE(BigInt(sizeBytes));
  bytes.writeUInt16BE(TRANSMISSION_FLAGS, 8);
  return bytes;
}

export function exportInfo(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(INFO.export);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 2);
  bytes.writeUInt16BE(TRANSMISSION_FLAGS, 10);
  return bytes;
}

export function blockSizeInfo(sizes: { least: number; preferred: number; most: number }): Buffer {
  const bytes = Buffer.alloc(14);
  bytes.writeUInt16BE(INFO.blockSize);
  bytes.writeUInt32BE(sizes.least, 2);
  bytes.writeUInt32BE(sizes.preferred, 6);
  bytes.writeUInt32BE(sizes.most, 10);
  return bytes;
}

export function metaContext(id: number, name: string): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(id);
  return Buffer.concat([bytes, Buffer.from(name, "latin1")]);
}

/** How a request is answered: its cookie, and whether the client takes structured replies. */
export interface Answering {
  cookie: Buffer;
  structured: boolean;
}

/** The head of an answer with content, which follows it, or, where the content is zeros and the client takes that, the whole answer. */
export function readReply(to: Answering, at: { offset: number; lengthBytes: number; zero: boolean }): Buffer {
  if (!to.structured) return simpleReply(to.cookie, 0);
  const payloadBytes = OFFSET_BYTES + (at.zero ? 4 : at.lengthBytes);
  const head = chunk(to.cookie, at.zero ? CHUNK.hole : CHUNK.data, payloadBytes);
  const bytes = Buffer.alloc(CHUNK_BYTES + OFFSET_BYTES + (at.zero ? 4 : 0));
  head.copy(bytes);
  bytes.writeBigUInt64BE(BigInt(at.offset), CHUNK_BYTES);
  if (at.zero) bytes.writeUInt32BE(at.lengthBytes, CHUNK_BYTES + OFFSET_BYTES);
  return bytes;
}

/** Answers a request for the status of blocks; only for clients that take structured replies. */
export function blockStatusReply(cookie: Buffer, extents: readonly BlockExtent[]): Buffer {
  assert(extents.length > 0, "there is something at every offset of a disk");
  const payload = Buffer.alloc(4 + extents.length * 8);
  payload.writeUInt32BE(ALLOCATION_ID);
  for (const [index, { lengthBytes, hole }] of extents.entries()) {
    payload.writeUInt32BE(lengthBytes, 4 + index * 8);
    payload.writeUInt32BE(hole ? HOLE_AND_ZERO : 0, 8 + index * 8);
  }
  return Buffer.concat([chunk(cookie, CHUNK.blockStatus, payload.length), payload]);
}

export function errorReply(to: Answering, error: number, why: string): Buffer {
  if (!to.structured) return simpleReply(to.cookie, error);
  const text = Buffer.from(why, "utf8").subarray(0, 1024);
  const payload = Buffer.alloc(6);
  payload.writeUInt32BE(error);
  payload.writeUInt16BE(text.length, 4);
  return Buffer.concat([chunk(to.cookie, CHUNK.error, payload.length + text.length), payload, text]);
}

function simpleReply(cookie: Buffer, error: number): Buffer {
  const bytes = Buffer.alloc(SIMPLE_REPLY_BYTES);
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC);
  bytes.writeUInt32BE(error, 4);
  cookie.copy(bytes, 8);
  return bytes;
}

/** Every answer is one chunk, which is the last of it. */
function chunk(cookie: Buffer, type: number, payloadBytes: number): Buffer {
  const bytes = Buffer.alloc(CHUNK_BYTES);
  bytes.writeUInt32BE(CHUNK_MAGIC);
  bytes.writeUInt16BE(CHUNK_DONE, 4);
  bytes.writeUInt16BE(type, 6);
  cookie.copy(bytes, 8);
  bytes.writeUInt32BE(payloadBytes, 16);
  return bytes;
}
