import type { FileHandle } from "node:fs/promises";
import { assert, Bitmap } from "../base/index.js";
import { chunkCount, chunkDigest, chunkLength, readWhole } from "./content-digest.js";
import { DiskError } from "./errors.js";
import { BLOCK_BYTES } from "./filling-limits.js";
import { CHUNK_BYTES, CHUNK_DIGEST_BYTES } from "./limits.js";

const CHUNK_BLOCKS = CHUNK_BYTES / BLOCK_BYTES;

/** Compares each chunk of a disk under way with what it must be, as soon as all of it is here. */
export class FillingChecks {
  readonly #options: { file: FileHandle; sizeBytes: number; chunks: Uint8Array | undefined };
  readonly #here: Bitmap;
  readonly #begun = new Map<number, Promise<void>>();
  /** Chunks that were found right. */
  readonly #right: Bitmap;
  /** Chunks in which there is something: the others need not be read, and the file system need not be asked, which would look through all of it each time. */
  readonly #written: Bitmap;

  /**
   * @param here the blocks that have come, as they come. Those that have by now were found right, or their chunk is not whole.
   * @param options.chunks what they must be; nothing is compared without.
   */
  constructor(
    here: Bitmap,
    options: { file: FileHandle; sizeBytes: number; chunks: Uint8Array | undefined },
  ) {
    this.#here = here;
    this.#options = options;
    const count = chunkCount(options.sizeBytes);
    this.#right = new Bitmap(count);
    this.#written = new Bitmap(count);
    for (let chunk = 0; chunk < count; chunk += 1) {
      const first = here.nextSet(chunk * CHUNK_BLOCKS);
      if (first === -1) break;
      if (first >= (chunk + 1) * CHUNK_BLOCKS) continue;
      this.#written.set(chunk);
      if (this.#isHere(chunk)) this.#right.set(chunk);
    }
  }

  /** Something other than zeros is about to be written to a block. */
  write(block: number): void {
    this.#written.set(Math.floor(block / CHUNK_BLOCKS));
  }

  /** Whether a block must not be noted yet, because its chunk is whole and was not found right so far. */
  isOpen(block: number): boolean {
    const chunk = Math.floor(block / CHUNK_BLOCKS);
    return this.#options.chunks !== undefined && !this.#right.has(chunk) && this.#isHere(chunk);
  }

  /**
   * Checks the chunks that blocks have made whole.
   * @throws DiskError `damaged`, naming the chunk.
   */
  async check(firstBlock: number, count: number): Promise<void> {
    if (this.#options.chunks === undefined) return;
    const last = Math.floor((firstBlock + count - 1) / CHUNK_BLOCKS);
    const whole: Promise<void>[] = [];
    for (let chunk = Math.floor(firstBlock / CHUNK_BLOCKS); chunk <= last; chunk += 1) {
      if (!this.#right.has(chunk) && this.#isHere(chunk)) whole.push(this.#checkOnce(chunk));
    }
    await Promise.all(whole);
  }

  /** The blocks of the chunk that a block lies in; undefined when nobody knows what they must be, and when they were found right. */
  unsettled(block: number): { first: number; count: number } | undefined {
    const chunk = Math.floor(block / CHUNK_BLOCKS);
    if (this.#options.chunks === undefined || this.#right.has(chunk)) return undefined;
    const first = chunk * CHUNK_BLOCKS;
    return { first, count: Math.min(CHUNK_BLOCKS, this.#here.length - first) };
  }

  /**
   * Checks a chunk some of which could not be kept.
   * @param unkept blocks that are not in the file.
   * @throws DiskError `damaged`, naming the chunk.
   */
  async checkWith(
    firstBlock: number,
    unkept: readonly { firstBlock: number; bytes: Buffer }[],
  ): Promise<void> {
    const { file, sizeBytes } = this.#options;
    const chunk = Math.floor(firstBlock / CHUNK_BLOCKS);
    const offset = chunk * CHUNK_BYTES;
    const bytes = Buffer.allocUnsafe(chunkLength(chunk, sizeBytes));
    await readWhole(file, { path: "a disk under way", bytes, offset });
    for (const each of unkept) each.bytes.copy(bytes, each.firstBlock * BLOCK_BYTES - offset);
    this.#require(chunk, await chunkDigest(bytes));
  }

  /** What a chunk has was thrown away: it is checked anew when it has come again. */
  forget(block: number): void {
    this.#begun.delete(Math.floor(block / CHUNK_BLOCKS));
  }

  #checkOnce(chunk: number): Promise<void> {
    const begun = this.#begun.get(chunk);
    if (begun !== undefined) return begun;
    const checking = this.#checkChunk(chunk).then(() => {
      this.#right.set(chunk);
      this.#begun.delete(chunk);
    });
    this.#begun.set(chunk, checking);
    return checking;
  }

  #isHere(chunk: number): boolean {
    const first = chunk * CHUNK_BLOCKS;
    const missing = this.#here.nextClear(first);
    return missing === -1 || missing >= Math.min(first + CHUNK_BLOCKS, this.#here.length);
  }

  async #checkChunk(chunk: number): Promise<void> {
    const { file, sizeBytes } = this.#options;
    const offset = chunk * CHUNK_BYTES;
    let found: Uint8Array = new Uint8Array(CHUNK_DIGEST_BYTES);
    if (this.#written.has(chunk)) {
      const bytes = Buffer.allocUnsafe(chunkLength(chunk, sizeBytes));
      await readWhole(file, { path: "a disk under way", bytes, offset });
      found = await chunkDigest(bytes);
    }
    this.#require(chunk, found);
  }

  #require(chunk: number, found: Uint8Array): void {
    const { sizeBytes, chunks } = this.#options;
    const expected = chunks?.subarray(chunk * CHUNK_DIGEST_BYTES, (chunk + 1) * CHUNK_DIGEST_BYTES);
    assert(expected?.length === CHUNK_DIGEST_BYTES, "there is a digest for every chunk");
    if (Buffer.compare(found, expected) === 0) return;
    const offset = chunk * CHUNK_BYTES;
    const where = `bytes ${offset} to ${offset + chunkLength(chunk, sizeBytes) - 1}`;
    throw new DiskError(
      "damaged",
      `${where} of a disk that came from another host are not what its digest says`,
    );
  }
}
