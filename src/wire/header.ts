import { assert, FRAME_HEADER_BYTES, MAX_FRAME_BODY_BYTES } from "../base/index.js";
import { WireError } from "./errors.js";

/** The last sequence number: 48 bits. At a million frames a second it is reached after nine years. */
export const MAX_SEQUENCE = 2 ** 48 - 1;

const MAX_U32 = 0xffffffff;

/** What stands in the 16 bytes before every body, once checked. */
export interface Header<Kind> {
  kind: Kind;
  flags: number;
  bodyBytes: number;
}

/** Where a frame stands: in which transfer, and as which frame of its connection and direction (the first is 1). */
export interface FramePosition {
  transfer: number;
  sequence: number;
}

/** Writes the header into the first 16 bytes of `into`. The body already has its length. */
export function encodeHeader(into: Buffer, header: Header<number>, at: FramePosition): void {
  assert(header.bodyBytes <= MAX_FRAME_BODY_BYTES, `a frame's body of ${header.bodyBytes} bytes is too long`);
  assert(Number.isSafeInteger(at.sequence) && at.sequence >= 1, `sequence ${at.sequence} starts at 1`);
  assert(at.sequence <= MAX_SEQUENCE, `sequence ${at.sequence} does not fit in 48 bits`);
  assert(at.transfer >= 0 && at.transfer <= MAX_U32, `transfer ${at.transfer} does not fit in 32 bits`);
  into[0] = header.kind;
  into[1] = header.flags;
  into.writeUIntBE(at.sequence, 2, 6);
  into.writeUInt32BE(at.transfer, 8);
  into.writeUInt32BE(header.bodyBytes, 12);
}

/**
 * Reads and checks a header against the position its frame must have.
 * @param kindOf the name of a kind's number; undefined for one that has no place on the lane.
 * @throws WireError `short-frame`, `unknown-kind`, `wrong-transfer`, `bad-sequence` or `bad-length`.
 */
export function decodeHeader<Kind>(
  bytes: Buffer,
  expect: FramePosition,
  kindOf: (number: number) => Kind | undefined,
): Header<Kind> {
  if (bytes.length < FRAME_HEADER_BYTES) {
    throw new WireError(
      "short-frame",
      `a frame has ${FRAME_HEADER_BYTES} bytes of header, this one ends after ${bytes.length}`,
    );
  }
  const kind = kindOf(bytes.readUInt8(0));
  if (kind === undefined)
    throw new WireError("unknown-kind", `frame kind ${bytes.readUInt8(0)} is not known`);
  const transfer = bytes.readUInt32BE(8);
  if (transfer !== expect.transfer) {
    throw new WireError(
      "wrong-transfer",
      `a frame of transfer ${transfer} came on a lane of transfer ${expect.transfer}`,
    );
  }
  const sequence = bytes.readUIntBE(2, 6);
  if (sequence !== expect.sequence) {
    throw new WireError("bad-sequence", `frame ${sequence} came where frame ${expect.sequence} was due`);
  }
  const bodyBytes = bytes.readUInt32BE(12);
  if (bodyBytes > MAX_FRAME_BODY_BYTES || bodyBytes !== bytes.length - FRAME_HEADER_BYTES) {
    const found = bytes.length - FRAME_HEADER_BYTES;
    throw new WireError("bad-length", `a frame announces a body of ${bodyBytes} bytes and brings ${found}`);
  }
  return { kind, flags: bytes.readUInt8(1), bodyBytes };
}
