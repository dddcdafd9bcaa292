import { open, type FileHandle } from "node:fs/promises";
import { writeWhole } from "./write-whole.js";

const PIECE_BYTES = 1024 * 1024;

/** Copies a file that nobody writes, with its holes, and syncs the copy. Errors as those of the file system. */
export async function copyFile(from: string, to: string): Promise<void> {
  const source = await open(from, "r");
  try {
    const target = await open(to, "w", 0o600);
    try {
      await copyAll(source, target);
      await target.sync();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function copyAll(source: FileHandle, target: FileHandle): Promise<void> {
  const piece = Buffer.alloc(PIECE_BYTES);
  const nothing = Buffer.alloc(PIECE_BYTES);
  let offset = 0;
  for (;;) {
    const { bytesRead } = await source.read(piece, 0, PIECE_BYTES, offset);
    if (bytesRead === 0) return target.truncate(offset);
    const content = piece.subarray(0, bytesRead);
    if (!content.equals(nothing.subarray(0, bytesRead))) await writeWhole(target, content, offset);
    offset += bytesRead;
  }
}
