import { closeSync, constants, lchownSync, openSync, rmSync } from "node:fs";
import { codeOf } from "../base/index.js";
import { MemoryError } from "./errors.js";
import { errnoName, loadNative } from "./native.js";

/**
 * The reading end of a pipe with a name, which holds up whoever writes more than it is to take. Its descriptor does not block. Fits
 * `StatePipe` of guest.
 */
export class NamedPipe {
  readonly fd: number;
  readonly #path: string;
  #closed = false;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.fd = fd;
  }

  /** Makes the pipe, for `owner` to write to, in place of whatever has this name. @throws MemoryError `bad-file`. */
  static create(path: string, owner: { uid: number; gid: number }): NamedPipe {
    rmSync(path, { force: true });
    const made = loadNative().makePipe(path);
    if (made < 0) throw new MemoryError("bad-file", `cannot make the pipe ${path} (${errnoName(made)})`);
    try {
      if (owner.uid !== process.geteuid?.()) lchownSync(path, owner.uid, owner.gid);
      return new NamedPipe(path, openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    } catch (cause) {
      rmSync(path, { force: true });
      throw new MemoryError("bad-file", `cannot open the pipe ${path} (${codeOf(cause)})`, { cause });
    }
  }

  /**
   * From here on a writer waits once about so many bytes are in the pipe: whole pages, at least one. A larger pipe lets whoever waits go on.
   * @throws MemoryError `bad-file` when the kernel does not allow the size.
   */
  resize(bytes: number): void {
    const result = loadNative().resizePipe(this.fd, bytes);
    if (result < 0)
      throw new MemoryError("bad-file", `cannot resize the pipe ${this.#path} (${errnoName(result)})`);
  }

  /** Closes and removes it; who still writes to it fails. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
    rmSync(this.#path, { force: true });
  }
}
