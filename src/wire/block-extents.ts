import { assert, MAX_BLOCK_EXTENTS } from "../base/index.js";
import type { BlockCodec } from "./block-codec.js";
import { BLOCK_EXTENT } from "./block-numbers.js";
import { checkBodyLength, checkCount, checkFixedPart, checkFlags, checkReserved } from "./body.js";
import { WireError } from "./errors.js";

/** Where a disk has content, in order from what a `map` asked for: at least something of it, and no more. */
export interface ExtentsFrame {
  kind: "extents";
  request: number;
  extents: { lengthBytes: number; hole: boolean }[];
}

const FIXED_BYTES = 8;
const EXTENT_BYTES = 8;

/** Body: u32 request, u16 extents, u16 zero; per extent u16 what it is, u48 length. */
export const extentsCodec: BlockCodec<ExtentsFrame> = {
  bodyBytes: ({ extents }) => FIXED_BYTES + extents.length * EXTENT_BYTES,

  encode({ request, extents }, into) {
    assert(
      extents.length >= 1 && extents.length <= MAX_BLOCK_EXTENTS,
      `a frame cannot hold ${extents.length} extents`,
    );
    into.writeUInt32BE(request, 0);
    into.writeUInt16BE(extents.length, 4);
    into.writeUInt16BE(0, 6);
    let at = FIXED_BYTES;
    for (const { lengthBytes, hole } of extents) {
      assert(lengthBytes > 0, "an extent has a length");
      into.writeUInt16BE(hole ? BLOCK_EXTENT.hole : BLOCK_EXTENT.data, at);
      into.writeUIntBE(lengthBytes, at + 2, 6);
      at += EXTENT_BYTES;
    }
  },

  decode(body, { flags }) {
    checkFlags("extents", flags, 0);
    checkFixedPart("extents", body, FIXED_BYTES);
    const count = body.readUInt16BE(4);
    checkCount("extents", count, { least: 1, most: MAX_BLOCK_EXTENTS });
    checkReserved("extents", body.readUInt16BE(6));
    checkBodyLength("extents", body, FIXED_BYTES + count * EXTENT_BYTES);
    const extents: ExtentsFrame["extents"] = [];
    for (let at = FIXED_BYTES; at < body.length; at += EXTENT_BYTES) {
      const what = body.readUInt16BE(at);
      const lengthBytes = body.readUIntBE(at + 2, 6);
      if (what !== BLOCK_EXTENT.data && what !== BLOCK_EXTENT.hole)
        throw new WireError("bad-extent", `extents of kind ${what} are not known`);
      if (lengthBytes === 0) throw new WireError("bad-extent", "an extent has no length");
      extents.push({ lengthBytes, hole: what === BLOCK_EXTENT.hole });
    }
    return { kind: "extents", request: body.readUInt32BE(0), extents };
  },
};
