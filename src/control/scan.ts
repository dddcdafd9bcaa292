import { ControlError } from "./errors.js";

/** What one message may hold, at the most. */
export interface ScanLimits {
  values: number;
  depth: number;
}

interface Cursor {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  position: number;
  valuesLeft: number;
}

type Head =
  | { kind: "scalar"; dataBytes: number }
  | { kind: "string"; dataBytes: number }
  | { kind: "map" | "array"; entries: number };

const SCALAR_BYTES: { [token: number]: number } = {
  0xc0: 0,
  0xc2: 0,
  0xc3: 0,
  0xca: 4,
  0xcb: 8,
  0xcc: 1,
  0xcd: 2,
  0xce: 4,
  0xcf: 8,
  0xd0: 1,
  0xd1: 2,
  0xd2: 4,
  0xd3: 8,
};

function bad(rule: string): ControlError {
  return new ControlError("bad-message", `a control message ${rule}`);
}

/**
 * Walks over one MessagePack value without building anything, and refuses what a control message never holds: extension
 * types (the decoder would make regular expressions, errors, dates and records of them), keys that are no strings, more
 * values or nesting than allowed, lengths beyond the end, and bytes after the value. Only what passed may be decoded: a
 * message of 8 MiB of empty maps alone would become half a gigabyte of objects.
 * @throws ControlError `bad-message`.
 */
export function scanMessage(bytes: Uint8Array, limits: ScanLimits): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cursor: Cursor = { bytes, view, position: 0, valuesLeft: limits.values };
  scanValue(cursor, limits.depth);
  if (cursor.position !== bytes.length) throw bad("is one value, with nothing after it");
}

function scanValue(cursor: Cursor, depth: number): void {
  cursor.valuesLeft -= 1;
  if (cursor.valuesLeft < 0) throw bad("has fewer values");
  const head = readHead(cursor);
  if (head.kind === "scalar" || head.kind === "string") return skip(cursor, head.dataBytes);
  if (depth === 0) throw bad("is nested less deeply");
  for (let entry = 0; entry < head.entries; entry += 1) {
    if (head.kind === "map") scanKey(cursor);
    scanValue(cursor, depth - 1);
  }
}

function scanKey(cursor: Cursor): void {
  const head = readHead(cursor);
  if (head.kind !== "string") throw bad("has strings as keys");
  skip(cursor, head.dataBytes);
}

/** Reads a token and the length after it (https://github.com/msgpack/msgpack/blob/master/spec.md, "Formats"). */
function readHead(cursor: Cursor): Head {
  const token = readLength(cursor, 1);
  if (token < 0x80 || token >= 0xe0) return { kind: "scalar", dataBytes: 0 };
  if (token < 0x90) return { kind: "map", entries: token - 0x80 };
  if (token < 0xa0) return { kind: "array", entries: token - 0x90 };
  if (token < 0xc0) return { kind: "string", dataBytes: token - 0xa0 };
  const dataBytes = SCALAR_BYTES[token];
  if (dataBytes !== undefined) return { kind: "scalar", dataBytes };
  if (token >= 0xc4 && token <= 0xc6) {
    return { kind: "scalar", dataBytes: readLength(cursor, 1 << (token - 0xc4)) };
  }
  if (token >= 0xd9 && token <= 0xdb) {
    return { kind: "string", dataBytes: readLength(cursor, 1 << (token - 0xd9)) };
  }
  if (token === 0xdc || token === 0xdd) {
    return { kind: "array", entries: readLength(cursor, token === 0xdc ? 2 : 4) };
  }
  if (token === 0xde || token === 0xdf) {
    return { kind: "map", entries: readLength(cursor, token === 0xde ? 2 : 4) };
  }
  throw bad("has no extension types");
}

function readLength(cursor: Cursor, size: number): number {
  const at = cursor.position;
  skip(cursor, size);
  if (size === 1) return cursor.bytes[at] as number;
  return size === 2 ? cursor.view.getUint16(at) : cursor.view.getUint32(at);
}

function skip(cursor: Cursor, count: number): void {
  cursor.position += count;
  if (cursor.position > cursor.bytes.length) throw bad("is complete");
}
