/** Makes the vectors of disks' digests, version 1. They are frozen: run it only to add some, and look at the difference. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { bytesOf } from "./bytes.js";
import type { DiskVector } from "./schema.js";

const CHUNK = 1024 * 1024;

const disks: Pick<DiskVector, "name" | "sizeBytes" | "data">[] = [
  { name: "one sector of zeros", sizeBytes: 512, data: [] },
  {
    name: "one sector of text",
    sizeBytes: 512,
    data: [{ offset: 0, bytes: [{ repeat: "72616d6574212121", times: 64 }] }],
  },
  { name: "a whole chunk of zeros", sizeBytes: CHUNK, data: [] },
  { name: "one chunk and one sector, all zeros", sizeBytes: CHUNK + 512, data: [] },
  {
    name: "zeros, a last sector that is not",
    sizeBytes: 3 * CHUNK + 512,
    data: [{ offset: 3 * CHUNK, bytes: [{ repeat: "ff", times: 512 }] }],
  },
  { name: "a single bit, in the middle", sizeBytes: 3 * CHUNK, data: [{ offset: 1.5 * CHUNK, bytes: ["01"] }] },
  {
    name: "across the border of two chunks",
    sizeBytes: 4 * CHUNK,
    data: [{ offset: CHUNK - 2, bytes: ["a1a2a3a4"] }],
  },
  {
    name: "two equal chunks",
    sizeBytes: 2 * CHUNK,
    data: [{ offset: 0, bytes: [{ repeat: "0001020304050607", times: (2 * CHUNK) / 8 }] }],
  },
  {
    name: "4 TiB, with one byte at the very end",
    sizeBytes: 4 * 1024 ** 4,
    data: [{ offset: 4 * 1024 ** 4 - 1, bytes: ["5a"] }],
  },
];

/** As proto/DISKS.md says it, with nothing of the implementation: so that one is held to the other. */
function digestsOf(disk: (typeof disks)[number]): Pick<DiskVector, "chunks" | "digest"> {
  const root = createHash("sha256").update("ramet disk content 1\0");
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(disk.sizeBytes));
  root.update(size);
  const chunks: DiskVector["chunks"] = [];
  for (let index = 0; index * CHUNK < disk.sizeBytes; index += 1) {
    const digest = chunkOf(disk, index);
    if (digest !== undefined) chunks.push({ index, digest: digest.toString("hex") });
    root.update(digest ?? Buffer.alloc(32));
  }
  return { chunks, digest: root.digest("hex") };
}

function chunkOf(disk: (typeof disks)[number], index: number): Buffer | undefined {
  const start = index * CHUNK;
  const placed = disk.data.map(({ offset, bytes }) => ({ offset, bytes: bytesOf(bytes) }));
  const touching = placed.filter(
    ({ offset, bytes }) => offset < start + CHUNK && offset + bytes.length > start,
  );
  if (touching.length === 0) return undefined;
  const chunk = Buffer.alloc(Math.min(CHUNK, disk.sizeBytes - start));
  for (const { offset, bytes } of touching)
    bytes.copy(chunk, Math.max(0, offset - start), Math.max(0, start - offset));
  return createHash("sha256").update(chunk).digest();
}

const lines = disks.map((disk) => `  ${JSON.stringify({ ...disk, ...digestsOf(disk) })}`);
writeFileSync(new URL("v1/disks.json", import.meta.url), `[\n${lines.join(",\n")}\n]\n`);
