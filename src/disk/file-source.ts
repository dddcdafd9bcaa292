import { open, type FileHandle } from "node:fs/promises";
import { assert, codeOf, messageOf } from "../base/index.js";
import type { BlockExtent, BlockSource } from "./block-source.js";
import { readWhole } from "./content-digest.js";
import { DiskError } from "./errors.js";
import type { Extent, FindData } from "./holes.js";

/** Extents found in one go; the event loop waits for them. */
const MAX_FOUND = 256;

/** A file that never changes, on this host: a base disk, or a frozen differencing disk as it lies there. */
export class FileSource implements BlockSource {
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #findData: FindData;
  /** The data found last: to find an end of it, the file system looks through all of it. */
  #data: Extent | undefined;

  private constructor(fields: { path: string; file: FileHandle; sizeBytes: number; findData: FindData }) {
    this.sizeBytes = fields.sizeBytes;
    this.#path = fields.path;
    this.#file = fields.file;
    this.#findData = fields.findData;
  }

  /** @throws DiskError `bad-image` when it cannot be read or is empty. */
  static async open(path: string, findData: FindData): Promise<FileSource> {
    let file: FileHandle;
    try {
      file = await open(path, "r");
    } catch (cause) {
      if (codeOf(cause) === "internal") throw cause;
      throw new DiskError("bad-image", `${path} cannot be read: ${messageOf(cause)}`, { cause });
    }
    try {
      const { size: sizeBytes } = await file.stat();
      if (sizeBytes === 0) throw new DiskError("bad-image", `${path} is empty`);
      return new FileSource({ path, file, sizeBytes, findData });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    assert(offset >= 0 && offset + lengthBytes <= this.sizeBytes, "a read lies in the file");
    const bytes = Buffer.allocUnsafe(lengthBytes);
    try {
      await readWhole(this.#file, { path: this.#path, bytes, offset });
    } catch (cause) {
      if (cause instanceof DiskError || codeOf(cause) === "internal") throw cause;
      throw new DiskError("bad-image", `${this.#path} cannot be read: ${messageOf(cause)}`, { cause });
    }
    return bytes;
  }

  /** As many as fit in an answer are found at once: each costs two system calls. */
  extents(offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    const end = offset + lengthBytes;
    const extents: BlockExtent[] = [];
    for (let at = offset; at < end && extents.length < MAX_FOUND;) {
      const data = this.#dataAt(at);
      const start = Math.min(data?.start ?? end, end);
      if (start > at) extents.push({ lengthBytes: start - at, hole: true });
      const past = Math.min(data?.end ?? end, end);
      if (past > start) extents.push({ lengthBytes: past - start, hole: false });
      at = past;
    }
    return Promise.resolve(extents);
  }

  #dataAt(offset: number): Extent | undefined {
    const known = this.#data;
    if (known !== undefined && offset >= known.start && offset < known.end)
      return { start: offset, end: known.end };
    this.#data = this.#findData(this.#file.fd, offset);
    return this.#data;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
