import type { FileHandle } from "node:fs/promises";
import { assert, type Bitmap } from "../base/index.js";
import { chunkDigest, chunkLength, readWhole } from "./content-digest.js";
import { DiskError } from "./errors.js";
import { BLOCK_BYTES } from "./filling-limits.js";
import type { FindData } from "./holes.js";
import { CHUNK_BYTES, CHUNK_DIGEST_BYTES } from "./limits.js";

const CHUNK_BLOCKS = CHUNK_BYTES / BLOCK_BYTES;

/** Compares each chunk of a disk under way with what it must be, as soon as all of it is here. */
export class FillingChecks {
  readonly #options: {
    file: FileHandle;
    sizeBytes: number;
    chunks: Uint8Array | undefined;
    findData: FindData;
  };
  readonly #here: Bitmap;
  readonly #begun = new Set<number>();

  /** @param here the blocks that have come, as they come. @param options.chunks what they must be; nothing is compared without. */
  constructor(
    here: Bitmap,
    options: { file: FileHandle; sizeBytes: number; chunks: Uint8Array | undefined; findData: FindData },
  ) {
    this.#here = here;
    this.#options = options;
  }

  /** Whether a block must not be noted yet, because its chunk is whole and was not found right so far. */
  isOpen(block: number): boolean {
    return this.#begun.has(Math.floor(block / CHUNK_BLOCKS));
  }

  /**
   * Checks the chunks that blocks have made whole.
   * @throws DiskError `damaged`, naming the chunk.
   */
  async check(firstBlock: number, count: number): Promise<void> {
    if (this.#options.chunks === undefined) return;
    const last = Math.floor((firstBlock + count - 1) / CHUNK_BLOCKS);
    const whole: number[] = [];
    for (let chunk = Math.floor(firstBlock / CHUNK_BLOCKS); chunk <= last; chunk += 1) {
      if (this.#isHere(chunk) && !this.#begun.has(chunk)) whole.push(chunk);
    }
    // All of them are begun at once, so that none is noted before its turn has come.
    for (const chunk of whole) this.#begun.add(chunk);
    for (const chunk of whole) {
      await this.#checkChunk(chunk, this.#options.chunks);
      this.#begun.delete(chunk);
    }
  }

  #isHere(chunk: number): boolean {
    const first = chunk * CHUNK_BLOCKS;
    const missing = this.#here.nextClear(first);
    return missing === -1 || missing >= Math.min(first + CHUNK_BLOCKS, this.#here.length);
  }

  async #checkChunk(chunk: number, chunks: Uint8Array): Promise<void> {
    const { file, sizeBytes, findData } = this.#options;
    const offset = chunk * CHUNK_BYTES;
    const length = chunkLength(chunk, sizeBytes);
    const expected = chunks.subarray(chunk * CHUNK_DIGEST_BYTES, (chunk + 1) * CHUNK_DIGEST_BYTES);
    assert(expected.length === CHUNK_DIGEST_BYTES, "there is a digest for every chunk");
    const data = findData(file.fd, offset);
    let found: Uint8Array = new Uint8Array(CHUNK_DIGEST_BYTES);
    if (data !== undefined && data.start < offset + length) {
      const bytes = Buffer.allocUnsafe(length);
      await readWhole(file, { path: "a disk under way", bytes, offset });
      found = await chunkDigest(bytes);
    }
    if (Buffer.compare(found, expected) === 0) return;
    const where = `bytes ${offset} to ${offset + length - 1}`;
    throw new DiskError(
      "damaged",
      `${where} of a disk that came from another host are not what its digest says`,
    );
  }
}
