import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Bitmap, codeOf, PAGE_HASH_BYTES } from "../../base/index.js";
import type { ChildNotes, PageRange } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import { writeAll } from "../store/files.js";

/**
 * A child's notes in files beside its memory, on tmpfs: `zeros`, a bit for each page (page 0 is bit 0 of byte 0), and `digests`, 16 bytes for each page,
 * only for a child that compares. Nothing is synced: what was written outlives the agent, and nothing of a child outlives the machine.
 */
export class FileNotes implements ChildNotes {
  readonly #pageCount: number;
  readonly #zeros: Bitmap;
  readonly #zerosFile: NotesFile;
  readonly #digestsFile: NotesFile | undefined;

  /**
   * Opens the notes in a directory; those of an earlier agent are read with `recover`, and removed without it.
   * @throws AgentError `bad-record` when the files cannot be opened or are not for this many pages.
   */
  constructor(directory: string, options: { pageCount: number; verify: boolean; recover: boolean }) {
    const { pageCount, verify, recover } = options;
    this.#pageCount = pageCount;
    this.#zeros = new Bitmap(pageCount);
    this.#zerosFile = new NotesFile(join(directory, "zeros"), Math.ceil(pageCount / 8), recover);
    try {
      this.#digestsFile = verify
        ? new NotesFile(join(directory, "digests"), pageCount * PAGE_HASH_BYTES, recover)
        : undefined;
    } catch (error) {
      this.#zerosFile.close();
      throw error;
    }
    if (!recover) return;
    const bytes = this.#zerosFile.read();
    for (let page = 0; page < pageCount; page += 1) {
      if (((bytes[page >>> 3] as number) & (1 << (page & 7))) !== 0) this.#zeros.set(page);
    }
  }

  /** Where another thread notes the digests of what it installs; undefined for a child that compares nothing. */
  get digestsPath(): string | undefined {
    return this.#digestsFile?.path;
  }

  noteZero(ranges: readonly PageRange[]): void {
    for (const { first, count } of ranges) {
      this.#zeros.setRun(first, count);
      const from = first >>> 3;
      const past = Math.min(this.#pageCount, (((first + count - 1) >>> 3) + 1) * 8);
      this.#zerosFile.write(from, this.#zeros.bytes(from * 8, past - from * 8));
    }
  }

  zeros(): Iterable<PageRange> {
    return this.#zeros.runs();
  }

  noteDigests(firstPage: number, digests: Uint8Array): void {
    this.#digestsFile?.write(firstPage * PAGE_HASH_BYTES, digests);
  }

  digests(): Uint8Array {
    return this.#digestsFile?.read() ?? new Uint8Array(0);
  }

  /** Closes the files, which stay for the next agent. May be called twice. */
  close(): void {
    this.#zerosFile.close();
    this.#digestsFile?.close();
  }

  /** Closes and removes the files. May be called twice. */
  remove(): void {
    this.#zerosFile.remove();
    this.#digestsFile?.remove();
  }
}

/** A file of a fixed size, sparse until it is written. */
class NotesFile {
  readonly path: string;
  readonly #sizeBytes: number;
  readonly #fd: number;
  #closed = false;

  constructor(path: string, sizeBytes: number, recover: boolean) {
    this.path = path;
    this.#sizeBytes = sizeBytes;
    const flags =
      constants.O_RDWR | constants.O_NOFOLLOW | (recover ? 0 : constants.O_CREAT | constants.O_TRUNC);
    try {
      this.#fd = openSync(path, flags, 0o600);
    } catch (cause) {
      throw new AgentError("bad-record", `a child's notes ${path} cannot be opened (${codeOf(cause)})`, {
        cause,
      });
    }
    if (!recover) {
      ftruncateSync(this.#fd, sizeBytes);
      return;
    }
    const { size } = fstatSync(this.#fd);
    if (size === sizeBytes) return;
    closeSync(this.#fd);
    throw new AgentError("bad-record", `a child's notes ${path} have ${size} bytes, not ${sizeBytes}`);
  }

  read(): Uint8Array {
    const bytes = new Uint8Array(this.#sizeBytes);
    readSync(this.#fd, bytes, 0, bytes.length, 0);
    return bytes;
  }

  /** @throws AgentError `no-room`, with which the child fails as one whose page finds no room. */
  write(offset: number, bytes: Uint8Array): void {
    writeAll(this.#fd, bytes, offset, this.path);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  remove(): void {
    this.close();
    rmSync(this.path, { force: true });
  }
}
