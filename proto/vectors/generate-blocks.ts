/** Makes the vectors of block lanes, version 1. They are frozen: run it only to add some, and look at the difference. */
import { writeFileSync } from "node:fs";
import { encodeBlockFrame, packContent, unpackContent, type BlockFrame } from "../../src/wire/index.js";
import { partsOf } from "./bytes.js";
import type { BlockRefusedVector, BlockVector, VectorBlockFrame } from "./schema.js";

const at = { transfer: 0x01020304, sequence: 5 };
/** Two disks were granted. */
const sizes = [1 << 20, 5 * 1024 ** 4];

const read: BlockFrame = { kind: "read", request: 7, disk: 0, offset: 65536, lengthBytes: 524288 };
const map: BlockFrame = { kind: "map", request: 8, disk: 1, offset: 2 ** 40, lengthBytes: 2 ** 42 };
const text = Buffer.alloc(3000, "blocks. ");
const content = (bytes: Buffer, compress = false): BlockFrame => ({
  kind: "content",
  request: 7,
  runs: packContent(bytes, { compress }),
});
const extents: BlockFrame = {
  kind: "extents",
  request: 8,
  extents: [
    { lengthBytes: 2 ** 41, hole: true },
    { lengthBytes: 1, hole: false },
  ],
};
const failed: BlockFrame = { kind: "failed", request: 7, failure: "gone", message: "it was removed: größer" };

const frames: [string, BlockFrame, { encode: boolean }?][] = [
  ["a read", read],
  ["the last byte of a disk", { kind: "read", request: 0xffffffff, disk: 0, offset: (1 << 20) - 1, lengthBytes: 1 }],
  ["a map of 4 TiB", map],
  ["raw content", content(text)],
  ["zeros", content(Buffer.alloc(512))],
  ["compressed content", content(text, true), { encode: false }],
  [
    "zeros and content, in three runs",
    content(Buffer.concat([Buffer.alloc(65536), Buffer.alloc(65536, "abcd"), Buffer.alloc(10)])),
  ],
  ["extents", extents],
  ["a failure", failed],
];

function vectorFrame(frame: BlockFrame): VectorBlockFrame {
  if (frame.kind !== "content") return frame;
  const lengthBytes = frame.runs.reduce((sum, run) => sum + run.lengthBytes, 0);
  const encodings = frame.runs.map(({ encoding }) => encoding);
  return { kind: "content", request: frame.request, encodings, content: partsOf(unpackContent(frame, lengthBytes)) };
}

/** A good frame with some bytes put over it. */
function spoilt(frame: BlockFrame, changes: [number, string][], cutTo?: number): Buffer {
  const bytes = encodeBlockFrame(frame, at);
  for (const [offset, hex] of changes) bytes.set(Buffer.from(hex, "hex"), offset);
  return bytes.subarray(0, cutTo);
}

const zeros = content(Buffer.alloc(512));
const refused: [string, Buffer, string][] = [
  ["nothing at all", Buffer.alloc(0), "short-frame"],
  ["kind 1, which is of page lanes", spoilt(read, [[0, "01"]]), "unknown-kind"],
  ["kind 21", spoilt(read, [[0, "15"]]), "unknown-kind"],
  ["another grant", spoilt(read, [[8, "01020305"]]), "wrong-transfer"],
  ["a frame again", spoilt(read, [[2, "000000000004"]]), "bad-sequence"],
  ["flags", spoilt(read, [[1, "01"]]), "bad-flags"],
  ["a read that is cut short", spoilt(read, [[12, "00000017"]], 39), "bad-length"],
  ["reserved bytes of a read", spoilt(read, [[22, "0001"]]), "bad-reserved"],
  ["a disk that was not granted", spoilt(read, [[20, "0002"]]), "unknown-disk"],
  ["a read of nothing", spoilt(read, [[32, "0000000000000000"]]), "bad-count"],
  ["a read of a byte more than is allowed", spoilt(read, [[32, "0000000000080001"]]), "bad-count"],
  ["a read across the end", spoilt(read, [[24, "0000000000080001"]]), "block-out-of-range"],
  ["a read far beyond the end", spoilt(read, [[24, "ffffffffffffffff"]]), "block-out-of-range"],
  ["a map of nothing", spoilt(map, [[32, "0000000000000000"]]), "bad-count"],
  ["a map across the end", spoilt(map, [[32, "0000040000000001"]]), "block-out-of-range"],
  ["content of no runs", spoilt(zeros, [[20, "0000"]]), "bad-count"],
  ["content of 65 runs", spoilt(zeros, [[20, "0041"]]), "bad-count"],
  ["more runs than there are descriptors", spoilt(zeros, [[20, "0002"]]), "bad-length"],
  ["reserved bytes of content", spoilt(zeros, [[22, "0001"]]), "bad-reserved"],
  ["encoding 0", spoilt(zeros, [[24, "00"]]), "bad-run"],
  ["encoding 4", spoilt(zeros, [[24, "04"]]), "bad-run"],
  ["reserved bytes of a run", spoilt(zeros, [[25, "000001"]]), "bad-reserved"],
  ["a run of nothing", spoilt(zeros, [[28, "00000000"]]), "bad-run"],
  ["a run of 65537 bytes", spoilt(zeros, [[28, "00010001"]]), "bad-run"],
  ["zeros with data", spoilt(zeros, [[32, "00000001"]]), "bad-run"],
  ["raw content without data", spoilt(zeros, [[24, "01"]]), "bad-run"],
  ["raw data that is missing", spoilt(zeros, [[24, "01"], [32, "00000200"]]), "bad-length"],
  ["compressed data that is longer than its content", spoilt(zeros, [[24, "02"], [32, "00000200"]]), "bad-run"],
  ["no extents", spoilt(extents, [[20, "0000"]]), "bad-count"],
  ["4097 extents", spoilt(extents, [[20, "1001"]]), "bad-count"],
  ["more extents than there are", spoilt(extents, [[20, "0003"]]), "bad-length"],
  ["reserved bytes of extents", spoilt(extents, [[22, "0001"]]), "bad-reserved"],
  ["an extent of kind 0", spoilt(extents, [[24, "0000"]]), "bad-extent"],
  ["an extent of kind 3", spoilt(extents, [[24, "0003"]]), "bad-extent"],
  ["an extent of no length", spoilt(extents, [[26, "000000000000"]]), "bad-extent"],
  ["a sentence that is cut short", spoilt(failed, [[12, "00000008"]], 24), "bad-length"],
  ["a sentence of 513 bytes", spoilt(failed, [[22, "0201"]]), "bad-count"],
];

const vectors: { frames: BlockVector[]; refused: BlockRefusedVector[] } = {
  frames: frames.map(([name, frame, { encode } = { encode: true }]) => ({
    name,
    ...at,
    sizes,
    encode,
    frame: vectorFrame(frame),
    bytes: partsOf(encodeBlockFrame(frame, at)),
  })),
  refused: refused.map(([name, bytes, error]) => ({ name, ...at, sizes, bytes: partsOf(bytes), error })),
};
writeFileSync(new URL("v1/blocks.json", import.meta.url), `${JSON.stringify(vectors, undefined, 1)}\n`);
