import { closeSync, constants, openSync, writeSync } from "node:fs";
import { PAGE_HASH_BYTES } from "../../base/index.js";

/** The digests a child notes (`FileNotes`), from another thread: it writes those of the pages it installs. */
export class DigestNotes {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Opens the file, which is there. Throws the file system's error. */
  static open(path: string): DigestNotes {
    return new DigestNotes(openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW));
  }

  /** Notes the digests of consecutive pages. Throws the file system's error, such as ENOSPC. */
  noteDigests(firstPage: number, digests: Uint8Array): void {
    writeSync(this.#fd, digests, 0, digests.length, firstPage * PAGE_HASH_BYTES);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
