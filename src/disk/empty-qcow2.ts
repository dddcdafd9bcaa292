/**
 * An empty qcow2 file (QEMU, docs/interop/qcow2.txt, version 3), written here because a fork makes one for each disk of each guest, and a program started for that would
 * take ten times as long:
 *
 *     cluster 0   header, the format of the backing file, its name
 *     cluster 1   the table of refcount blocks     ─▶ cluster 2
 *     cluster 2   the one refcount block: clusters 0 to 3 are in use
 *     cluster 3   the first-level table, all zeros: nothing is here, all is read from the backing file
 */
import { assert } from "../base/index.js";
import { MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";

const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 1 << CLUSTER_BITS;
const CLUSTERS = 4;
const ENTRY_BYTES = 8;
const MAGIC = 0x514649fb;
const VERSION = 3;
/** 16 bits each. */
const REFCOUNT_ORDER = 4;
const HEADER_BYTES = 104;
const BACKING_FORMAT = 0xe2792aca;
/** The longest name the format takes. */
const MAX_BACKING_BYTES = 1023;
/** What one entry of the first-level table stands for: a cluster of entries for a cluster each. */
const L1_ENTRY_BYTES = (CLUSTER_BYTES / ENTRY_BYTES) * CLUSTER_BYTES;

assert(
  MAX_DISK_BYTES / L1_ENTRY_BYTES <= CLUSTER_BYTES / ENTRY_BYTES,
  "one cluster holds the first-level table",
);

/** What a new disk is read from where nothing was written yet. */
export interface Backing {
  path: string;
  format: "raw" | "qcow2";
}

/** The bytes of an empty disk, over another one or over nothing. The name of the backing file is a note for people: emulators are told, and do not believe it. */
export function emptyQcow2(sizeBytes: number, backing?: Backing): Buffer {
  assert(sizeBytes > 0 && sizeBytes % SECTOR_BYTES === 0, "a disk is whole sectors");
  assert(sizeBytes <= MAX_DISK_BYTES, "a disk's size is within bounds");
  const bytes = Buffer.alloc(CLUSTERS * CLUSTER_BYTES);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(VERSION, 4);
  bytes.writeUInt32BE(CLUSTER_BITS, 20);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 24);
  bytes.writeUInt32BE(Math.ceil(sizeBytes / L1_ENTRY_BYTES), 36);
  bytes.writeBigUInt64BE(BigInt(3 * CLUSTER_BYTES), 40);
  bytes.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48);
  bytes.writeUInt32BE(1, 56);
  bytes.writeUInt32BE(REFCOUNT_ORDER, 96);
  bytes.writeUInt32BE(HEADER_BYTES, 100);
  if (backing !== undefined) writeBacking(bytes, backing);
  bytes.writeBigUInt64BE(BigInt(2 * CLUSTER_BYTES), CLUSTER_BYTES);
  for (let cluster = 0; cluster < CLUSTERS; cluster += 1)
    bytes.writeUInt16BE(1, 2 * CLUSTER_BYTES + 2 * cluster);
  return bytes;
}

function writeBacking(bytes: Buffer, { path, format }: Backing): void {
  const name = Buffer.from(path);
  assert(name.length <= MAX_BACKING_BYTES, "a backing file's name fits in the header");
  let at = HEADER_BYTES;
  bytes.writeUInt32BE(BACKING_FORMAT, at);
  bytes.writeUInt32BE(format.length, at + 4);
  bytes.write(format, at + 8, "latin1");
  // Extensions are padded to 8 bytes, and one of type 0 and length 0 is the last.
  at += 8 + Math.ceil(format.length / 8) * 8 + 8;
  name.copy(bytes, at);
  bytes.writeBigUInt64BE(BigInt(at), 8);
  bytes.writeUInt32BE(name.length, 16);
}
