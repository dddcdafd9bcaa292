import { FRAME_HEADER_BYTES, unreachable } from "../base/index.js";
import type { BlockCodec, BlockContext } from "./block-codec.js";
import { contentCodec, type ContentFrame } from "./block-content.js";
import { extentsCodec, type ExtentsFrame } from "./block-extents.js";
import { failedCodec, type FailedFrame } from "./block-failed.js";
import { BLOCK_FRAME_KIND, blockKindOf, type BlockFrameKind } from "./block-numbers.js";
import { mapCodec, readCodec, type MapFrame, type ReadFrame } from "./block-requests.js";
import { decodeHeader, encodeHeader, type FramePosition } from "./header.js";

/** Everything that travels on a block lane: see proto/BLOCKS.md. */
export type BlockFrame = ReadFrame | MapFrame | ContentFrame | ExtentsFrame | FailedFrame;

/** Writes a frame. What does not fit the protocol's limits is our own mistake and fails an assertion. The result shares no memory with `frame`. */
export function encodeBlockFrame(frame: BlockFrame, at: FramePosition): Buffer {
  switch (frame.kind) {
    case "read":
      return write(frame, at, readCodec);
    case "map":
      return write(frame, at, mapCodec);
    case "content":
      return write(frame, at, contentCodec);
    case "extents":
      return write(frame, at, extentsCodec);
    case "failed":
      return write(frame, at, failedCodec);
    default:
      return unreachable(frame);
  }
}

/**
 * Reads one whole frame as strictly as `decodeFrame`. The data of content are views of `bytes`.
 * @param expect `sizes`: the bytes of each of the grant's disks.
 * @throws WireError for anything else; nothing else is ever thrown for what a peer sent.
 */
export function decodeBlockFrame(
  bytes: Uint8Array,
  expect: FramePosition & { sizes: readonly number[] },
): BlockFrame {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { kind, flags } = decodeHeader(whole, expect, blockKindOf);
  return decodeBody(kind, whole.subarray(FRAME_HEADER_BYTES), { flags, sizes: expect.sizes });
}

function write<F extends BlockFrame>(frame: F, at: FramePosition, codec: BlockCodec<F>): Buffer {
  const bodyBytes = codec.bodyBytes(frame);
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + bodyBytes);
  encodeHeader(bytes, { kind: BLOCK_FRAME_KIND[frame.kind], flags: 0, bodyBytes }, at);
  codec.encode(frame, bytes.subarray(FRAME_HEADER_BYTES));
  return bytes;
}

function decodeBody(kind: BlockFrameKind, body: Buffer, context: BlockContext): BlockFrame {
  switch (kind) {
    case "read":
      return readCodec.decode(body, context);
    case "map":
      return mapCodec.decode(body, context);
    case "content":
      return contentCodec.decode(body, context);
    case "extents":
      return extentsCodec.decode(body, context);
    case "failed":
      return failedCodec.decode(body, context);
    default:
      return unreachable(kind);
  }
}
