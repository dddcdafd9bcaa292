import { assert, MAX_FRAME_HASHES, PAGE_HASH_BYTES } from "../base/index.js";
import {
  checkBodyLength,
  checkCount,
  checkFixedPart,
  checkFlags,
  checkRange,
  checkReserved,
  type BodyCodec,
} from "./body.js";
import { WireError } from "./errors.js";

/** Digests of consecutive pages at the instant of the fork, for a verified transfer. Bulk lane, parent to child. */
export interface HashesFrame {
  kind: "hashes";
  firstPage: number;
  /** 16 bytes per page. In a decoded frame it is a view of the frame's bytes. */
  digests: Uint8Array;
}

const FIXED_BYTES = 8;

/** Body: u32 first page, u16 count, u8 bytes per digest (16), u8 zero; then the digests. */
export const hashesCodec: BodyCodec<HashesFrame> = {
  flags: () => 0,

  bodyBytes: (frame) => FIXED_BYTES + frame.digests.length,

  encode(frame, into) {
    const count = frame.digests.length / PAGE_HASH_BYTES;
    assert(
      Number.isInteger(count) && count >= 1 && count <= MAX_FRAME_HASHES,
      `a frame cannot hold ${count} hashes`,
    );
    into.writeUInt32BE(frame.firstPage, 0);
    into.writeUInt16BE(count, 4);
    into[6] = PAGE_HASH_BYTES;
    into[7] = 0;
    into.set(frame.digests, FIXED_BYTES);
  },

  decode(body, { flags, pageCount }) {
    checkFlags("hashes", flags, 0);
    checkFixedPart("hashes", body, FIXED_BYTES);
    const firstPage = body.readUInt32BE(0);
    const count = body.readUInt16BE(4);
    checkCount("hashes", count, { least: 1, most: MAX_FRAME_HASHES });
    const digestBytes = body.readUInt8(6);
    if (digestBytes !== PAGE_HASH_BYTES) {
      throw new WireError("bad-length", `page hashes have ${PAGE_HASH_BYTES} bytes, not ${digestBytes}`);
    }
    checkReserved("hashes", body.readUInt8(7));
    checkRange("hashes", { first: firstPage, count }, pageCount);
    checkBodyLength("hashes", body, FIXED_BYTES + count * PAGE_HASH_BYTES);
    return { kind: "hashes", firstPage, digests: body.subarray(FIXED_BYTES) };
  },
};
