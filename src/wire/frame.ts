import { assert, FRAME_HEADER_BYTES, MAX_MEMORY_PAGES, unreachable } from "../base/index.js";
import type { BodyCodec, DecodeContext } from "./body.js";
import { doneCodec, type DoneFrame } from "./done.js";
import { hashesCodec, type HashesFrame } from "./hashes.js";
import { haveCodec, type HaveFrame } from "./have.js";
import { decodeHeader, encodeHeader, type FramePosition } from "./header.js";
import { FRAME_KIND, kindOf, type FrameKind } from "./numbers.js";
import { pagesCodec, type PagesFrame } from "./pages.js";
import { receivedCodec, type ReceivedFrame } from "./received.js";
import { relayedCodec, type RelayedFrame } from "./relayed.js";
import { requestCodec, type RequestFrame } from "./request.js";

/** Everything that travels on a page lane. */
export type Frame =
  PagesFrame | RequestFrame | ReceivedFrame | HaveFrame | HashesFrame | DoneFrame | RelayedFrame;

/** Bytes of the whole frame, header included: what it costs of the bulk window. */
export function frameBytes(frame: Frame): number {
  switch (frame.kind) {
    case "pages":
      return FRAME_HEADER_BYTES + pagesCodec.bodyBytes(frame);
    case "request":
      return FRAME_HEADER_BYTES + requestCodec.bodyBytes(frame);
    case "received":
      return FRAME_HEADER_BYTES + receivedCodec.bodyBytes(frame);
    case "have":
      return FRAME_HEADER_BYTES + haveCodec.bodyBytes(frame);
    case "hashes":
      return FRAME_HEADER_BYTES + hashesCodec.bodyBytes(frame);
    case "done":
      return FRAME_HEADER_BYTES + doneCodec.bodyBytes(frame);
    case "relayed":
      return FRAME_HEADER_BYTES + relayedCodec.bodyBytes(frame);
    default:
      return unreachable(frame);
  }
}

/**
 * Writes a frame. What does not fit the protocol's limits is our own mistake and fails an assertion. The result shares
 * no memory with `frame`.
 * @param at the transfer's number, and the frame's number on its connection and direction, from 1.
 * @param room gives the buffer to write into, of at least so many bytes; the result is its beginning. A new one without it.
 */
export function encodeFrame(
  frame: Frame,
  at: FramePosition,
  room: (bytes: number) => Buffer = Buffer.allocUnsafe,
): Buffer {
  switch (frame.kind) {
    case "pages":
      return write(frame, at, { codec: pagesCodec, room });
    case "request":
      return write(frame, at, { codec: requestCodec, room });
    case "received":
      return write(frame, at, { codec: receivedCodec, room });
    case "have":
      return write(frame, at, { codec: haveCodec, room });
    case "hashes":
      return write(frame, at, { codec: hashesCodec, room });
    case "done":
      return write(frame, at, { codec: doneCodec, room });
    case "relayed":
      return write(frame, at, { codec: relayedCodec, room });
    default:
      return unreachable(frame);
  }
}

/**
 * Reads one whole frame, strictly: its transfer and sequence must be those expected, every count and length is checked
 * before it is used, every page must lie in the guest's memory, reserved bytes must be zero and nothing may follow.
 * The data of pages and hashes are views of `bytes`.
 * @param expect `pageCount` is the number of pages of the guest's memory.
 * @throws WireError for anything else; nothing else is ever thrown for what a peer sent.
 */
export function decodeFrame(bytes: Uint8Array, expect: FramePosition & { pageCount: number }): Frame {
  assert(
    expect.pageCount >= 1 && expect.pageCount <= MAX_MEMORY_PAGES,
    `no memory has ${expect.pageCount} pages`,
  );
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = decodeHeader(whole, expect, kindOf);
  const context = { flags: header.flags, pageCount: expect.pageCount };
  return decodeBody(header.kind, whole.subarray(FRAME_HEADER_BYTES), context);
}

function write<F extends Frame>(
  frame: F,
  at: FramePosition,
  { codec, room }: { codec: BodyCodec<F>; room: (bytes: number) => Buffer },
): Buffer {
  const bodyBytes = codec.bodyBytes(frame);
  const frameBytes = FRAME_HEADER_BYTES + bodyBytes;
  const bytes = room(frameBytes).subarray(0, frameBytes);
  encodeHeader(bytes, { kind: FRAME_KIND[frame.kind], flags: codec.flags(frame), bodyBytes }, at);
  codec.encode(frame, bytes.subarray(FRAME_HEADER_BYTES));
  return bytes;
}

function decodeBody(kind: FrameKind, body: Buffer, context: DecodeContext): Frame {
  switch (kind) {
    case "pages":
      return pagesCodec.decode(body, context);
    case "request":
      return requestCodec.decode(body, context);
    case "received":
      return receivedCodec.decode(body, context);
    case "have":
      return haveCodec.decode(body, context);
    case "hashes":
      return hashesCodec.decode(body, context);
    case "done":
      return doneCodec.decode(body, context);
    case "relayed":
      return relayedCodec.decode(body, context);
    default:
      return unreachable(kind);
  }
}
