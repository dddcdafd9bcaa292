import { open, type FileHandle } from "node:fs/promises";
import { DiskError } from "./errors.js";
import { writeWhole } from "./write-whole.js";

const PIECE_BYTES = 1024 * 1024;

/** Who has a file copied: is told how far it is, and may end it. */
export interface CopyFollower {
  onProgress?: (doneBytes: number, sizeBytes: number) => void;
  signal?: AbortSignal;
}

/** Copies a file that nobody writes, with its holes, and syncs the copy. @throws DiskError `cancelled`; errors as those of the file system. */
export async function copyFile(from: string, to: string, follower: CopyFollower = {}): Promise<void> {
  const source = await open(from, "r");
  try {
    const target = await open(to, "w", 0o600);
    try {
      await copyAll(source, target, follower);
      await target.sync();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function copyAll(
  source: FileHandle,
  target: FileHandle,
  { onProgress, signal }: CopyFollower,
): Promise<void> {
  const piece = Buffer.alloc(PIECE_BYTES);
  const nothing = Buffer.alloc(PIECE_BYTES);
  const { size } = await source.stat();
  let offset = 0;
  for (;;) {
    onProgress?.(offset, size);
    if (signal?.aborted === true) throw new DiskError("cancelled", "a copy was cancelled");
    const { bytesRead } = await source.read(piece, 0, PIECE_BYTES, offset);
    if (bytesRead === 0) return target.truncate(offset);
    const content = piece.subarray(0, bytesRead);
    if (!content.equals(nothing.subarray(0, bytesRead))) await writeWhole(target, content, offset);
    offset += bytesRead;
  }
}
