import { DiskError, type BlockExtent, type BlockSource } from "../../src/disk/index.js";

const BLOCK = 4096;
const ZEROS = Buffer.alloc(BLOCK);

/** A disk in memory, whose reads can be held up or fail. */
export class ArraySource implements BlockSource {
  readonly bytes: Buffer;
  /** Ranges that were read, in order. */
  readonly reads: { offset: number; lengthBytes: number }[] = [];
  /** Called before a read or a question for extents is answered; what it rejects with is the answer. */
  before: (offset: number, asked: "bytes" | "extents") => Promise<void> = () => Promise.resolve();

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    this.reads.push({ offset, lengthBytes });
    await this.before(offset, "bytes");
    if (offset + lengthBytes > this.bytes.length) throw new DiskError("bad-image", "a read beyond the end");
    return Buffer.from(this.bytes.subarray(offset, offset + lengthBytes));
  }

  async extents(offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    await this.before(offset, "extents");
    const found: BlockExtent[] = [];
    for (let at = offset; at < offset + lengthBytes;) {
      const end = Math.min((Math.floor(at / BLOCK) + 1) * BLOCK, offset + lengthBytes);
      const hole = this.bytes.compare(ZEROS, 0, end - at, at, end) === 0;
      const last = found.at(-1);
      if (last?.hole === hole) last.lengthBytes += end - at;
      else found.push({ lengthBytes: end - at, hole });
      at = end;
    }
    return found;
  }
}

/** A disk of `blocks` blocks of 4 KiB, each filled with its number, but every third a hole. */
export function sampleDisk(blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * BLOCK);
  for (let block = 0; block < blocks; block += 1) {
    if (block % 3 !== 2) bytes.fill((block % 255) + 1, block * BLOCK, (block + 1) * BLOCK);
  }
  return bytes;
}
