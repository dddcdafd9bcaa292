import { DiskError } from "./errors.js";
import { requireDiskSize } from "./content-digest.js";

/** Bytes in which header and extensions must end: the first cluster, which is at least so long, has them. */
export const QCOW2_HEAD_BYTES = 64 * 1024;

const VERSION_2_BYTES = 72;
const VERSION_3_BYTES = 104;
const MIN_CLUSTER_BITS = 9;
const MAX_CLUSTER_BITS = 21;

/** Features without which a file cannot be read right (QEMU's docs/interop/qcow2): those that change nothing for who only reads it all. */
const DIRTY = 1n << 0n;
const CORRUPT = 1n << 1n;
const DATA_FILE = 1n << 2n;
const COMPRESSION_TYPE = 1n << 3n;
const EXTENDED_L2 = 1n << 4n;
const READABLE = DIRTY | COMPRESSION_TYPE | EXTENDED_L2;

const EXTENSION_END = 0;
const EXTENSION_DATA_FILE = 0x44415441;
const EXTENSION_LUKS = 0x0537be77;

/**
 * Reads the header of a qcow2 file that a stranger made, before any program opens it: a program would follow the names of other files in it.
 * @param head the file's first bytes, `QCOW2_HEAD_BYTES` or all there are.
 * @returns the size of the disk in it.
 * @throws DiskError `refers-outside`, `encrypted`, `bad-image`.
 */
export function checkQcow2Header(
  head: Buffer,
  about: { path: string; fileBytes: number },
): { sizeBytes: number } {
  const { path, fileBytes } = about;
  const bad = (problem: string) =>
    new DiskError(
      "bad-image",
      `${path} is no sound qcow2 file: ${problem} (say --format raw, if these are a disk's own bytes)`,
    );
  if (head.length < VERSION_2_BYTES) throw bad(`it ends within its header`);
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw bad(`version ${version} is not known`);
  if (version === 3 && head.length < VERSION_3_BYTES) throw bad(`it ends within its header`);
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS)
    throw bad(`clusters of 2^${clusterBits} bytes are not allowed`);
  if (head.readBigUInt64BE(8) !== 0n) throw withBackingFile(head, path);
  if (head.readUInt32BE(32) !== 0) throw encrypted(path);
  if (version === 3) checkFeatures(head.readBigUInt64BE(72), path);
  const headerBytes = version === 2 ? VERSION_2_BYTES : head.readUInt32BE(100);
  if (headerBytes < (version === 2 ? VERSION_2_BYTES : VERSION_3_BYTES) || headerBytes % 8 !== 0)
    throw bad(`a header of ${headerBytes} bytes is not allowed`);
  checkExtensions(head.subarray(0, Math.min(head.length, 2 ** clusterBits)), headerBytes, path);
  // A table that is not there would be read as zeros, and be taken for one of a disk that holds nothing.
  const fits = (offset: bigint, bytes: number) => offset + BigInt(bytes) <= BigInt(fileBytes);
  if (!fits(head.readBigUInt64BE(40), head.readUInt32BE(36) * 8))
    throw bad("it ends before its table of clusters");
  if (!fits(head.readBigUInt64BE(48), head.readUInt32BE(56) * 2 ** clusterBits))
    throw bad("it ends before its table of reference counts");
  const size = head.readBigUInt64BE(24);
  const sizeBytes = size > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(size);
  requireDiskSize(sizeBytes, `the disk in ${path}`);
  return { sizeBytes };
}

function checkFeatures(incompatible: bigint, path: string): void {
  if ((incompatible & DATA_FILE) !== 0n) throw withDataFile(path);
  if ((incompatible & CORRUPT) !== 0n) {
    throw new DiskError(
      "bad-image",
      `${path} is marked as corrupt; repair a copy with: qemu-img check -r all FILE`,
    );
  }
  const unknown = incompatible & ~READABLE;
  if (unknown === 0n) return;
  throw new DiskError(
    "bad-image",
    `${path} needs features of qcow2 that are not known (0x${unknown.toString(16)})`,
  );
}

/** Walks over the extensions: type, length, and as many bytes, filled up to eight. */
function checkExtensions(head: Buffer, start: number, path: string): void {
  for (let at = start; at + 8 <= head.length;) {
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === EXTENSION_END) return;
    if (type === EXTENSION_DATA_FILE) throw withDataFile(path);
    if (type === EXTENSION_LUKS) throw encrypted(path);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  throw new DiskError("bad-image", `${path} is no sound qcow2 file: its header does not end`);
}

function withBackingFile(head: Buffer, path: string): DiskError {
  const offset = Number(head.readBigUInt64BE(8));
  const length = head.readUInt32BE(16);
  const name = head.subarray(offset, offset + Math.min(length, 255)).toString("utf8");
  return new DiskError(
    "refers-outside",
    `${path} has a backing file (${JSON.stringify(name)}) and is not the whole disk; where that file is, make it whole: qemu-img convert -O qcow2 FILE WHOLE`,
  );
}

function withDataFile(path: string): DiskError {
  return new DiskError(
    "refers-outside",
    `${path} keeps its data in another file and is not the whole disk; where that file is, make it whole: qemu-img convert -O qcow2 FILE WHOLE`,
  );
}

function encrypted(path: string): DiskError {
  return new DiskError(
    "encrypted",
    `${path} is encrypted, and there is no secret to read it with; decrypt it with qemu-img convert first`,
  );
}
