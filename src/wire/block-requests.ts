import { assert, MAX_BLOCK_READ_BYTES } from "../base/index.js";
import type { BlockCodec } from "./block-codec.js";
import { checkBodyLength, checkFlags, checkReserved } from "./body.js";
import { WireError } from "./errors.js";

/** Bytes of a disk that somebody needs. The reader's, on either lane, which brings the answer. */
export interface ReadFrame {
  kind: "read";
  /** The reader's own number for it, which the answer carries: none that is still to be answered has the same. */
  request: number;
  /** Which of the grant's disks. */
  disk: number;
  offset: number;
  lengthBytes: number;
}

/** Where a disk has content, from an offset on. As `ReadFrame`. */
export interface MapFrame {
  kind: "map";
  request: number;
  disk: number;
  offset: number;
  lengthBytes: number;
}

const BODY_BYTES = 24;

/** Body: u32 request, u16 disk, u16 zero, u64 offset, u64 length. */
function requestCodec<Frame extends ReadFrame | MapFrame>(
  kind: Frame["kind"],
  mostBytes: number,
): BlockCodec<Frame> {
  return {
    bodyBytes: () => BODY_BYTES,

    encode({ request, disk, offset, lengthBytes }, into) {
      assert(lengthBytes > 0 && lengthBytes <= mostBytes, `a ${kind} cannot ask for ${lengthBytes} bytes`);
      into.writeUInt32BE(request, 0);
      into.writeUInt16BE(disk, 4);
      into.writeUInt16BE(0, 6);
      into.writeBigUInt64BE(BigInt(offset), 8);
      into.writeBigUInt64BE(BigInt(lengthBytes), 16);
    },

    decode(body, { flags, sizes }) {
      checkFlags(kind, flags, 0);
      checkBodyLength(kind, body, BODY_BYTES);
      checkReserved(kind, body.readUInt16BE(6));
      const disk = body.readUInt16BE(4);
      const sizeBytes = sizes[disk];
      if (sizeBytes === undefined) throw new WireError("unknown-disk", `no disk ${disk} was granted`);
      const offset = body.readBigUInt64BE(8);
      const length = body.readBigUInt64BE(16);
      if (length === 0n || length > BigInt(mostBytes))
        throw new WireError("bad-count", `a ${kind} asks for 1 to ${mostBytes} bytes, not ${length}`);
      if (offset + length > BigInt(sizeBytes))
        throw new WireError(
          "block-out-of-range",
          `a ${kind} asks for ${length} bytes at ${offset} of a disk of ${sizeBytes} bytes`,
        );
      const fields = {
        request: body.readUInt32BE(0),
        disk,
        offset: Number(offset),
        lengthBytes: Number(length),
      };
      return { kind, ...fields } as Frame;
    },
  };
}

export const readCodec = requestCodec<ReadFrame>("read", MAX_BLOCK_READ_BYTES);
export const mapCodec = requestCodec<MapFrame>("map", Number.MAX_SAFE_INTEGER);
