import { assert, MAX_BLOCK_FAILURE_BYTES } from "../base/index.js";
import type { BlockCodec } from "./block-codec.js";
import { BLOCK_FAILURE, blockFailureOf, type BlockFailure } from "./block-numbers.js";
import { checkBodyLength, checkCount, checkFixedPart, checkFlags } from "./body.js";

/** A request that cannot be answered, and why. Others are, and the lane stays. */
export interface FailedFrame {
  kind: "failed";
  request: number;
  failure: BlockFailure;
  /** A sentence for people. */
  message: string;
}

const FIXED_BYTES = 8;

/** Body: u32 request, u16 failure, u16 bytes, and so many bytes of UTF-8. */
export const failedCodec: BlockCodec<FailedFrame> = {
  bodyBytes: ({ message }) => FIXED_BYTES + Buffer.byteLength(message),

  encode({ request, failure, message }, into) {
    const text = Buffer.from(message, "utf8");
    assert(text.length <= MAX_BLOCK_FAILURE_BYTES, `a sentence of ${text.length} bytes is too long`);
    into.writeUInt32BE(request, 0);
    into.writeUInt16BE(BLOCK_FAILURE[failure], 4);
    into.writeUInt16BE(text.length, 6);
    into.set(text, FIXED_BYTES);
  },

  decode(body, { flags }) {
    checkFlags("failed", flags, 0);
    checkFixedPart("failed", body, FIXED_BYTES);
    // A later version may tell reasons apart that this one does not know.
    const failure = blockFailureOf(body.readUInt16BE(4)) ?? "unreadable";
    const lengthBytes = body.readUInt16BE(6);
    checkCount("failed", lengthBytes, { least: 0, most: MAX_BLOCK_FAILURE_BYTES });
    checkBodyLength("failed", body, FIXED_BYTES + lengthBytes);
    const message = body.toString("utf8", FIXED_BYTES);
    return { kind: "failed", request: body.readUInt32BE(0), failure, message };
  },
};
