import type { FileHandle } from "node:fs/promises";
import type { Bitmap } from "../base/index.js";
import { BLOCK_BYTES } from "./filling-limits.js";
import type { FindData } from "./holes.js";
import { writeWhole } from "./write-whole.js";

/**
 * Blocks are to be zeros, and stay holes where they are. An earlier try may have left something else in the file: what was found wrong and thrown away, or not noted before a crash. That is
 * written over. Errors as those of the file system.
 * @param blocks.here those that have come, which are left alone.
 */
export async function clearStale(
  at: { file: FileHandle; findData: FindData; sizeBytes: number },
  blocks: { firstBlock: number; count: number; here: Bitmap; checks: { write(block: number): void } },
): Promise<void> {
  const { file, findData, sizeBytes } = at;
  const { here, checks } = blocks;
  const end = Math.min((blocks.firstBlock + blocks.count) * BLOCK_BYTES, sizeBytes);
  for (let offset = blocks.firstBlock * BLOCK_BYTES; offset < end;) {
    const data = findData(file.fd, offset);
    if (data === undefined || data.start >= end) return;
    const block = Math.floor(Math.max(data.start, offset) / BLOCK_BYTES);
    offset = Math.min((block + 1) * BLOCK_BYTES, end);
    if (here.has(block)) continue;
    checks.write(block);
    await writeWhole(file, Buffer.alloc(offset - block * BLOCK_BYTES), block * BLOCK_BYTES);
  }
}
