import { createHash, webcrypto } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { assert, type Clock } from "../base/index.js";
import { DiskError } from "./errors.js";
import type { Extent, FindData } from "./holes.js";
import { CHUNK_BYTES, CHUNK_DIGEST_BYTES, MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";

/** Begins what the root digest covers, so that it is never the digest of anything else. */
const DOMAIN = Buffer.from("ramet disk content 1\0");

const ZEROS = Buffer.alloc(CHUNK_BYTES);

/** Bytes of chunk digests that are hashed before others have their turn: less than a millisecond. */
const ROOT_STEP_BYTES = 256 * 1024;

/** A disk's content by its digests. */
export interface Content {
  /** Of all of it: 64 hexadecimal digits. */
  readonly digest: string;
  readonly sizeBytes: number;
  /** Of each chunk, in order, `CHUNK_DIGEST_BYTES` each; all zeros where the chunk is. */
  readonly chunks: Uint8Array;
}

/** Told of bytes that have been dealt with, of all there are. Must not throw. */
export type OnProgress = (doneBytes: number, sizeBytes: number) => void;

export interface DigestOptions {
  clock: Clock;
  findData: FindData;
  onProgress?: OnProgress | undefined;
  /** Ends the work, with DiskError `cancelled`. */
  signal?: AbortSignal | undefined;
}

/** How many chunks a disk has; the last one may be shorter. */
export function chunkCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / CHUNK_BYTES);
}

/** Where a chunk lies on a disk. */
export function chunkLength(index: number, sizeBytes: number): number {
  return Math.min(CHUNK_BYTES, sizeBytes - index * CHUNK_BYTES);
}

/** @throws DiskError `bad-image` when no disk has this size. */
export function requireDiskSize(sizeBytes: number, what: string): void {
  if (sizeBytes > 0 && sizeBytes <= MAX_DISK_BYTES && sizeBytes % SECTOR_BYTES === 0) return;
  const rule = `a disk has 512 bytes to ${MAX_DISK_BYTES / 1024 ** 4} TiB in whole sectors of ${SECTOR_BYTES} bytes`;
  throw new DiskError("bad-image", `${what} has ${sizeBytes} bytes; ${rule}`);
}

/** Whether bytes, a chunk at the most, are all zero. */
export function isZero(bytes: Uint8Array): boolean {
  return ZEROS.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
}

/** One chunk's digest: all zeros for one that holds nothing else, SHA-256 otherwise. The hashing is the thread pool's. */
export async function chunkDigest(bytes: Uint8Array): Promise<Uint8Array> {
  assert(bytes.length > 0 && bytes.length <= CHUNK_BYTES, `a chunk has 1 to ${CHUNK_BYTES} bytes`);
  if (isZero(bytes)) return new Uint8Array(CHUNK_DIGEST_BYTES);
  return new Uint8Array(await webcrypto.subtle.digest("SHA-256", bytes));
}

/** The digest of a disk by those of its chunks; see proto/DISKS.md. */
export async function rootDigest(clock: Clock, sizeBytes: number, chunks: Uint8Array): Promise<string> {
  assert(
    chunks.length === chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES,
    `${sizeBytes} bytes have ${chunkCount(sizeBytes)} chunks`,
  );
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(sizeBytes));
  const root = createHash("sha256").update(DOMAIN).update(size);
  for (let at = 0; at < chunks.length; at += ROOT_STEP_BYTES) {
    if (at > 0) await new Promise<void>((resolve) => clock.soon(resolve));
    root.update(chunks.subarray(at, at + ROOT_STEP_BYTES));
  }
  return root.digest("hex");
}

/** Puts a content's digests together, chunk by chunk in any order. Chunks that are not put are zeros. */
export class ContentBuilder {
  readonly sizeBytes: number;
  readonly #chunks: Uint8Array;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#chunks = new Uint8Array(chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES);
  }

  /** Takes a chunk's bytes, all of them; they are not touched meanwhile. */
  async put(index: number, bytes: Uint8Array): Promise<void> {
    assert(bytes.length === chunkLength(index, this.sizeBytes), `chunk ${index} has another length`);
    this.#chunks.set(await chunkDigest(bytes), index * CHUNK_DIGEST_BYTES);
  }

  async finish(clock: Clock): Promise<Content> {
    const { sizeBytes } = this;
    return { digest: await rootDigest(clock, sizeBytes, this.#chunks), sizeBytes, chunks: this.#chunks };
  }
}

/**
 * Digests a raw disk. Holes are passed over; what is read, is read and hashed by the thread pool, one chunk at a time.
 * @throws DiskError `bad-image` when the file is no disk or becomes shorter meanwhile, `cancelled`.
 */
export async function digestFile(path: string, options: DigestOptions): Promise<Content> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    requireDiskSize(size, path);
    const builder = new ContentBuilder(size);
    await eachDataChunk({ file, path, sizeBytes: size, ...options }, (index, bytes) =>
      builder.put(index, bytes),
    );
    return await builder.finish(options.clock);
  } finally {
    await file.close();
  }
}

/** Reads every chunk of a disk that is not all hole, in order, into one buffer that is used again. @throws as `digestFile`. */
export async function eachDataChunk(
  options: { file: FileHandle; path: string; sizeBytes: number } & Omit<DigestOptions, "clock">,
  visit: (index: number, bytes: Buffer, offset: number) => Promise<void>,
): Promise<void> {
  const { file, path, sizeBytes, findData, onProgress, signal } = options;
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  // Asked for once each: the kernel walks to the end of an extent to find it, however far that is.
  let data: Extent | undefined = { start: 0, end: 0 };
  for (let index = 0; index < chunkCount(sizeBytes);) {
    if (signal?.aborted === true) throw new DiskError("cancelled", `reading ${path} was cancelled`);
    if (index * CHUNK_BYTES >= data.end) data = findData(file.fd, index * CHUNK_BYTES);
    if (data === undefined) break;
    index = Math.max(index, Math.floor(data.start / CHUNK_BYTES));
    if (index >= chunkCount(sizeBytes)) break;
    const bytes = buffer.subarray(0, chunkLength(index, sizeBytes));
    await readWhole(file, { path, bytes, offset: index * CHUNK_BYTES });
    await visit(index, bytes, index * CHUNK_BYTES);
    index += 1;
    onProgress?.(Math.min(index * CHUNK_BYTES, sizeBytes), sizeBytes);
  }
  onProgress?.(sizeBytes, sizeBytes);
}

/** Fills `bytes` from `offset` on. @throws DiskError `bad-image` when the file ends before. */
export async function readWhole(
  file: FileHandle,
  from: { path: string; bytes: Uint8Array; offset: number },
): Promise<void> {
  for (let done = 0; done < from.bytes.length;) {
    const { bytesRead } = await file.read(from.bytes, done, from.bytes.length - done, from.offset + done);
    if (bytesRead === 0)
      throw new DiskError("bad-image", `${from.path} ends before the ${from.offset + done + 1}th byte`);
    done += bytesRead;
  }
}
