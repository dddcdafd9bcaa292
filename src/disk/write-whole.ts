import type { FileHandle } from "node:fs/promises";

/** Writes all of some bytes: a write stops short where a disk is full, and fails only when it is gone on with. Rejects with what the file system says. */
export async function writeWhole(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}
