import { closeSync, constants, openSync } from "node:fs";
import { PAGE_HASH_BYTES } from "../../base/index.js";
import { writeAll } from "../store/files.js";

/** The digests a child notes (`FileNotes`), from another thread: it writes those of the pages it installs. */
export class DigestNotes {
  readonly #fd: number;
  readonly #path: string;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** Opens the file, which is there. Throws the file system's error. */
  static open(path: string): DigestNotes {
    return new DigestNotes(openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW), path);
  }

  /** Notes the digests of consecutive pages. @throws AgentError `no-room`. */
  noteDigests(firstPage: number, digests: Uint8Array): void {
    writeAll(this.#fd, digests, firstPage * PAGE_HASH_BYTES, this.#path);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
