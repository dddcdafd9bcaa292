import { assert, MAX_BLOCK_RUN_BYTES, MAX_BLOCK_RUNS } from "../base/index.js";
import type { BlockCodec } from "./block-codec.js";
import { checkBodyLength, checkCount, checkFixedPart, checkFlags, checkReserved } from "./body.js";
import { WireError } from "./errors.js";
import { compressBlock, decompressBlock, LZ4_PREFIX_BYTES } from "./lz4.js";
import { ENCODING, encodingOf, type Encoding } from "./numbers.js";
import { isZero } from "./run.js";

/** A stretch of a disk with its content as it stands on the wire. */
export interface BlockRun {
  encoding: Encoding;
  lengthBytes: number;
  /** Empty for zeros. In a decoded frame it is a view of the frame's bytes. */
  data: Uint8Array;
}

/** What a `read` asked for, all of it, in order. */
export interface ContentFrame {
  kind: "content";
  request: number;
  runs: BlockRun[];
}

const FIXED_BYTES = 8;
const DESCRIPTOR_BYTES = 12;
const NOTHING = new Uint8Array(0);

/**
 * Cuts content into runs: zeros as such, LZ4 where asked for and where that saves at least an eighth, raw otherwise. A raw run's data are a view of `bytes`.
 */
export function packContent(bytes: Buffer, options: { compress: boolean }): BlockRun[] {
  const runs: BlockRun[] = [];
  for (let at = 0; at < bytes.length; at += MAX_BLOCK_RUN_BYTES) {
    const piece = bytes.subarray(at, at + MAX_BLOCK_RUN_BYTES);
    runs.push(packRun(piece, options.compress));
  }
  return runs;
}

function packRun(bytes: Buffer, compress: boolean): BlockRun {
  const lengthBytes = bytes.length;
  if (isZero(bytes)) return { encoding: "zero", lengthBytes, data: NOTHING };
  if (compress) {
    const data = compressBlock(bytes);
    if (data.length <= lengthBytes - lengthBytes / 8) return { encoding: "lz4", lengthBytes, data };
  }
  return { encoding: "raw", lengthBytes, data: bytes };
}

/**
 * The content of a frame, which shares no memory with it.
 * @param lengthBytes what was asked for.
 * @throws WireError `bad-run` when it is not that long, `bad-lz4`.
 */
export function unpackContent(frame: ContentFrame, lengthBytes: number): Buffer {
  const found = frame.runs.reduce((sum, run) => sum + run.lengthBytes, 0);
  if (found !== lengthBytes)
    throw new WireError("bad-run", `${found} bytes of content came where ${lengthBytes} were asked for`);
  const content = Buffer.allocUnsafe(lengthBytes);
  let at = 0;
  for (const run of frame.runs) {
    if (run.encoding === "zero") content.fill(0, at, at + run.lengthBytes);
    else if (run.encoding === "raw") content.set(run.data, at);
    else content.set(decompressBlock(run.data, run.lengthBytes), at);
    at += run.lengthBytes;
  }
  return content;
}

/** Body: u32 request, u16 runs, u16 zero; per run 12 bytes of descriptor; then the data of all runs, in the same order. */
export const contentCodec: BlockCodec<ContentFrame> = {
  bodyBytes: ({ runs }) => runs.reduce((sum, { data }) => sum + DESCRIPTOR_BYTES + data.length, FIXED_BYTES),

  encode({ request, runs }, into) {
    assert(runs.length >= 1 && runs.length <= MAX_BLOCK_RUNS, `a frame cannot hold ${runs.length} runs`);
    into.writeUInt32BE(request, 0);
    into.writeUInt16BE(runs.length, 4);
    into.writeUInt16BE(0, 6);
    let at = FIXED_BYTES;
    let dataAt = FIXED_BYTES + runs.length * DESCRIPTOR_BYTES;
    for (const { encoding, lengthBytes, data } of runs) {
      const wrong = wrongRun(encoding, lengthBytes, data.length);
      assert(wrong === undefined, `a run to be sent is wrong: ${wrong}`);
      into.writeUInt32BE(ENCODING[encoding] << 24, at);
      into.writeUInt32BE(lengthBytes, at + 4);
      into.writeUInt32BE(data.length, at + 8);
      into.set(data, dataAt);
      at += DESCRIPTOR_BYTES;
      dataAt += data.length;
    }
  },

  decode(body, { flags }) {
    checkFlags("content", flags, 0);
    checkFixedPart("content", body, FIXED_BYTES);
    const count = body.readUInt16BE(4);
    checkCount("content", count, { least: 1, most: MAX_BLOCK_RUNS });
    checkReserved("content", body.readUInt16BE(6));
    const firstDataAt = FIXED_BYTES + count * DESCRIPTOR_BYTES;
    checkFixedPart("content", body, firstDataAt);
    const runs: BlockRun[] = [];
    let dataAt = firstDataAt;
    for (let at = FIXED_BYTES; at < firstDataAt; at += DESCRIPTOR_BYTES) {
      const run = decodeRun(body, at, dataAt);
      dataAt += run.data.length;
      runs.push(run);
    }
    checkBodyLength("content", body, dataAt);
    return { kind: "content", request: body.readUInt32BE(0), runs };
  },
};

function decodeRun(body: Buffer, at: number, dataAt: number): BlockRun {
  const encoding = encodingOf(body.readUInt8(at));
  if (encoding === undefined) throw new WireError("bad-run", `encoding ${body.readUInt8(at)} is not known`);
  checkReserved("content", body.readUIntBE(at + 1, 3));
  const lengthBytes = body.readUInt32BE(at + 4);
  const dataBytes = body.readUInt32BE(at + 8);
  const wrong = wrongRun(encoding, lengthBytes, dataBytes);
  if (wrong !== undefined) throw new WireError("bad-run", wrong);
  if (dataAt + dataBytes > body.length)
    throw new WireError("bad-length", "the data of a run of content end outside their frame");
  return { encoding, lengthBytes, data: body.subarray(dataAt, dataAt + dataBytes) };
}

/** The rule a run breaks; undefined when it breaks none. Both sides hold to the same rules. */
function wrongRun(encoding: Encoding, lengthBytes: number, dataBytes: number): string | undefined {
  if (lengthBytes === 0 || lengthBytes > MAX_BLOCK_RUN_BYTES)
    return `a run of content has 1 to ${MAX_BLOCK_RUN_BYTES} bytes, not ${lengthBytes}`;
  const isRight =
    encoding === "zero"
      ? dataBytes === 0
      : encoding === "raw"
        ? dataBytes === lengthBytes
        : dataBytes > LZ4_PREFIX_BYTES && dataBytes < lengthBytes;
  return isRight
    ? undefined
    : `${lengthBytes} bytes of content are not ${dataBytes} bytes of ${encoding} data`;
}
