import { constants } from "node:fs";
import { chmod, open, statfs, type FileHandle } from "node:fs/promises";
import { codeOf, messageOf, type Clock } from "../base/index.js";
import {
  ContentBuilder,
  digestFile,
  eachDataChunk,
  isZero,
  requireDiskSize,
  type Content,
} from "./content-digest.js";
import { DiskError } from "./errors.js";
import type { FindData } from "./holes.js";
import type { ImageFiles } from "./image-files.js";
import { asDiskError } from "./image-files.js";
import { detectFormat, FORMAT_HEAD_BYTES, type ImageFormat } from "./image-format.js";
import type { OnImportProgress } from "./images.js";
import { MAX_DISK_BYTES, SPARSE_BYTES } from "./limits.js";
import { checkQcow2Header, QCOW2_HEAD_BYTES } from "./qcow2-header.js";
import { passedPath, type QemuImg } from "./qemu-img.js";
import { writeWhole } from "./write-whole.js";

/** What qemu-img check says by its exit code besides 0: errors were found; only clusters that nobody uses. */
const CHECK_CORRUPT = 2;
const CHECK_LEAKS = 3;

/** What bringing a file in takes besides the file. */
export interface SourceParts {
  clock: Clock;
  findData: FindData;
  qemuImg: QemuImg;
  /** The user qemu-img reads strangers' files as. */
  uid: number | undefined;
}

interface Reading extends SourceParts {
  onProgress: OnImportProgress | undefined;
  signal: AbortSignal | undefined;
}

/** A file of this host that is to become an image. It is opened once, so that it is the same file all the time, and closed by who opened it. */
export class ImageSource {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #sizeBytes: number;
  readonly #changedMs: number;
  readonly format: ImageFormat;

  private constructor(options: {
    path: string;
    file: FileHandle;
    found: { size: number; mtimeMs: number };
    format: ImageFormat;
  }) {
    this.#path = options.path;
    this.#file = options.file;
    this.#sizeBytes = options.found.size;
    this.#changedMs = options.found.mtimeMs;
    this.format = options.format;
  }

  /** @throws DiskError `bad-image` when it cannot be read, is no regular file, empty or of a format that is not taken. */
  static async open(path: string, format: ImageFormat | undefined): Promise<ImageSource> {
    const bad = (problem: string) => new DiskError("bad-image", `${path} ${problem}`);
    let file: FileHandle;
    try {
      // A pipe would be waited for otherwise, and holds a thread of the pool as long.
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (error) {
      if (codeOf(error) === "ENOENT") throw bad("is not there, on the agent's machine");
      throw new DiskError("bad-image", `the image ${path} cannot be read: ${messageOf(error)}`, {
        cause: error,
      });
    }
    try {
      const found = await file.stat();
      if (!found.isFile()) throw bad("is not a regular file");
      if (found.size === 0) throw bad("is empty");
      const head = Buffer.alloc(FORMAT_HEAD_BYTES);
      const { bytesRead } = await file.read(head, 0, head.length, 0);
      const detected = format ?? detectFormat(head.subarray(0, bytesRead), path);
      if (detected === "raw") requireDiskSize(found.size, path);
      else if (found.size > MAX_DISK_BYTES) throw bad("is larger than any disk may be");
      return new ImageSource({ path, file, found, format: detected });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Makes the raw disk of an image that is being made, and digests it. @throws DiskError */
  async bring(files: ImageFiles, reading: Reading): Promise<Content> {
    try {
      await this.#requireRoom(files);
      return this.format === "raw"
        ? await this.#copyRaw(files.disk, reading)
        : await this.#convert(files, reading);
    } catch (error) {
      throw asDiskError(error, files.disk);
    }
  }

  /** One pass: what is read is hashed and written. */
  async #copyRaw(target: string, reading: Reading): Promise<Content> {
    const { clock, onProgress } = reading;
    const builder = new ContentBuilder(this.#sizeBytes);
    await this.#copy(target, reading, {
      visit: (index, bytes) => builder.put(index, bytes),
      onProgress: (doneBytes, sizeBytes) => onProgress?.({ phase: "copy", doneBytes, sizeBytes }),
    });
    return builder.finish(clock);
  }

  /**
   * The file is copied before anybody looks into it: what was checked is then what is converted, whatever its owner does meanwhile. The copy is read
   * by qemu-img, as a user who may nothing else, through descriptors.
   */
  async #convert(files: ImageFiles, reading: Reading): Promise<Content> {
    const { onProgress, signal } = reading;
    const copy = `${files.disk}.qcow2`;
    await this.#copy(copy, reading, {
      visit: async () => {},
      onProgress: (doneBytes, sizeBytes) => onProgress?.({ phase: "copy", doneBytes, sizeBytes }),
    });
    await chmod(copy, 0o644);
    const source = await open(copy, "r");
    try {
      const { sizeBytes } = await this.#checkQcow2(source, reading);
      const target = await open(files.disk, "wx+");
      try {
        await target.truncate(sizeBytes);
        // The directory is closed to everybody else; the user who writes it comes in by the descriptor.
        await chmod(files.disk, 0o666);
        await reading.qemuImg.run({
          args: [
            ...["convert", "-p", "-n", "--target-is-zero", "-S", "4k"],
            ...["-f", "qcow2", "-O", "raw", passedPath(0), passedPath(1)],
          ],
          files: [source.fd, target.fd],
          uid: reading.uid,
          onPercent: (percent) =>
            onProgress?.({ phase: "convert", doneBytes: (sizeBytes / 100) * percent, sizeBytes }),
          signal,
        });
        await chmod(files.disk, 0o600);
      } finally {
        await target.close();
      }
    } finally {
      await source.close();
    }
    return digestFile(files.disk, {
      ...reading,
      onProgress: (doneBytes, sizeBytes) => onProgress?.({ phase: "digest", doneBytes, sizeBytes }),
    });
  }

  /** qemu-img reads zeros where a file was cut off: what its tables say must be there. */
  async #checkQcow2(copy: FileHandle, reading: Reading): Promise<{ sizeBytes: number }> {
    const head = Buffer.alloc(Math.min(QCOW2_HEAD_BYTES, this.#sizeBytes));
    const { bytesRead } = await copy.read(head, 0, head.length, 0);
    const header = checkQcow2Header(head.subarray(0, bytesRead), {
      path: this.#path,
      fileBytes: this.#sizeBytes,
    });
    const problem = await this.#problemOf(copy, reading);
    if (problem === undefined) return header;
    throw new DiskError(
      "bad-image",
      `${this.#path} is no sound qcow2 file, or was cut short: ${problem.slice(0, 300)}`,
    );
  }

  async #problemOf(copy: FileHandle, { qemuImg, uid, signal }: Reading): Promise<string | undefined> {
    const checking = { files: [copy.fd], uid, signal, accept: [CHECK_CORRUPT, CHECK_LEAKS] };
    try {
      const answer = await qemuImg.run({ args: ["check", "-f", "qcow2", passedPath(0)], ...checking });
      return answer.code === CHECK_CORRUPT ? wordsIn(answer) : undefined;
    } catch (error) {
      if (codeOf(error) !== "tool-failed") throw error;
      return messageOf(error);
    }
  }

  async #copy(
    target: string,
    reading: Reading,
    each: {
      visit: (index: number, bytes: Buffer) => Promise<void>;
      onProgress: (doneBytes: number, sizeBytes: number) => void;
    },
  ): Promise<void> {
    const sizeBytes = this.#sizeBytes;
    const to = await open(target, "wx", 0o644);
    try {
      await to.truncate(sizeBytes);
      await eachDataChunk(
        { ...reading, file: this.#file, path: this.#path, sizeBytes, onProgress: each.onProgress },
        async (index, bytes, offset) => {
          await Promise.all([each.visit(index, bytes), writeSparsely(to, { bytes, offset })]);
        },
      );
      await this.#requireUnchanged();
    } finally {
      await to.close();
    }
  }

  /** A file that is written while it is read would become a disk that never was. */
  async #requireUnchanged(): Promise<void> {
    const { size, mtimeMs } = await this.#file.stat();
    if (size === this.#sizeBytes && mtimeMs === this.#changedMs) return;
    throw new DiskError(
      "bad-image",
      `${this.#path} was changed while it was imported; import it when nobody writes it`,
    );
  }

  async #requireRoom(files: ImageFiles): Promise<void> {
    const [{ blocks }, { bavail, bsize }] = [await this.#file.stat(), await statfs(files.directory)];
    const neededBytes = Math.min(blocks * 512, this.#sizeBytes);
    if (neededBytes <= bavail * bsize) return;
    throw new DiskError(
      "no-room",
      `${this.#path} takes ${neededBytes} bytes, and the file system of ${files.directory} has ${bavail * bsize} left: make room there; ramet image prune removes images nobody uses`,
    );
  }
}

/** What the program said, in one line: first what it found in all. */
function wordsIn({ output, words }: { output: string; words: string }): string {
  const lines = [...output.split("\n"), words].map((line) => line.trim());
  return lines.filter((line) => line !== "").join("; ");
}

/** Writes what is not zero of a chunk, so that the file has holes where there is nothing. */
async function writeSparsely(to: FileHandle, piece: { bytes: Buffer; offset: number }): Promise<void> {
  const { bytes, offset } = piece;
  const isHole = (at: number) => isZero(bytes.subarray(at, at + SPARSE_BYTES));
  for (let start = 0; start < bytes.length;) {
    if (isHole(start)) {
      start += SPARSE_BYTES;
      continue;
    }
    let end = start + SPARSE_BYTES;
    while (end < bytes.length && !isHole(end)) end += SPARSE_BYTES;
    await writeWhole(to, bytes.subarray(start, end), offset + start);
    start = end;
  }
}
