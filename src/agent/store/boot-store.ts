import { createHash, type Hash } from "node:crypto";
import { statSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../../base/index.js";
import { AgentError } from "../errors.js";
import { asRoomError, syncDirectory, UNFINISHED_SUFFIX, unfinishedName } from "./files.js";

/** Most bytes of one kernel or initrd. */
export const MAX_BOOT_FILE_BYTES = 2 * 1024 * 1024 * 1024;

const COPY_CHUNK_BYTES = 1024 * 1024;
const DIGEST_PATTERN = /^[0-9a-f]{64}$/;

/** Keeps a boot file from being removed until it is let go. */
export interface BootFileHold {
  readonly digest: string;
  readonly path: string;
  /** May be called twice. */
  letGo(): void;
}

/**
 * Kernels and initrds by content: `boot/<sha256>`. A guest never refers to the file its user named, which a package upgrade may
 * replace under it, and a child on another host finds the same bytes under the same name when it reboots.
 *
 *     import or receive → <name>.unfinished → synced → renamed to its digest        (a crash leaves only .unfinished files,
 *                                                                                     which `open` removes)
 */
export class BootStore {
  readonly #directory: string;
  readonly #holds = new Map<string, number>();

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens the store in `directory`, made when missing, and removes what a crash left half written. */
  static async open(directory: string): Promise<BootStore> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory)) {
      if (name.endsWith(UNFINISHED_SUFFIX)) await rm(join(directory, name), { force: true });
    }
    return new BootStore(directory);
  }

  /** Where a file of this digest is or would be. */
  path(digest: string): string {
    if (!DIGEST_PATTERN.test(digest)) {
      throw new AgentError("bad-boot-file", `a boot file's digest must be 64 hexadecimal digits (SHA-256)`);
    }
    return join(this.#directory, digest);
  }

  /** Whether the file is here, whole, with this size. */
  async has(digest: string): Promise<boolean> {
    return sizeOf(this.path(digest)) !== undefined;
  }

  /** The file's size in bytes. @throws AgentError `bad-boot-file` when it is not here. */
  async sizeBytes(digest: string): Promise<number> {
    const size = sizeOf(this.path(digest));
    if (size === undefined)
      throw new AgentError("bad-boot-file", `there is no boot file ${digest} on this host`);
    return size;
  }

  /** Keeps the file with this digest, which need not be here yet, from being removed. */
  hold(digest: string): BootFileHold {
    const path = this.path(digest);
    this.#holds.set(digest, (this.#holds.get(digest) ?? 0) + 1);
    let held = true;
    return {
      digest,
      path,
      letGo: () => {
        if (!held) return;
        held = false;
        const left = (this.#holds.get(digest) ?? 1) - 1;
        if (left === 0) this.#holds.delete(digest);
        else this.#holds.set(digest, left);
      },
    };
  }

  /**
   * Copies a file of this host into the store; the same content twice, even at the same time, gives one file.
   * @throws AgentError `bad-boot-file` when it cannot be read.
   */
  async import(source: string): Promise<BootFileHold> {
    let from: FileHandle;
    try {
      from = await open(source, "r");
    } catch (error) {
      throw new AgentError("bad-boot-file", `the boot file ${source} cannot be read: ${messageOf(error)}`, {
        cause: error,
      });
    }
    try {
      const { size } = await checkSource(from, source);
      const upload = await this.receive({ sizeBytes: size });
      try {
        const chunk = Buffer.allocUnsafe(COPY_CHUNK_BYTES);
        for (;;) {
          const { bytesRead } = await from.read(chunk, 0, chunk.length, upload.receivedBytes);
          if (bytesRead === 0) break;
          await upload.write(upload.receivedBytes, chunk.subarray(0, bytesRead));
        }
        return await upload.finish();
      } finally {
        await upload.abandon();
      }
    } finally {
      await from.close();
    }
  }

  /** Begins to receive a file. With `digest`, `finish` refuses any other content. */
  async receive(options: { sizeBytes: number; digest?: string }): Promise<BootUpload> {
    if (options.sizeBytes <= 0 || options.sizeBytes > MAX_BOOT_FILE_BYTES) {
      throw new AgentError(
        "bad-boot-file",
        `a boot file must have 1 to ${MAX_BOOT_FILE_BYTES} bytes, not ${options.sizeBytes}`,
      );
    }
    if (options.digest !== undefined) this.path(options.digest);
    return BootUpload.begin({ store: this, directory: this.#directory, ...options });
  }

  /** Reads a piece of a file, to be sent to a peer. */
  async read(digest: string, at: { offset: number; maxBytes: number }): Promise<Buffer> {
    const file = await open(this.path(digest), "r");
    try {
      const chunk = Buffer.allocUnsafe(at.maxBytes);
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at.offset);
      return chunk.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }

  /** Removes every file that is neither held nor in `used`; returns the digests removed. */
  async collect(used: ReadonlySet<string>): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await readdir(this.#directory)) {
      // The holds are looked at directly before each removal: an import may have come in since the directory was read.
      if (!DIGEST_PATTERN.test(name) || used.has(name) || this.#holds.has(name)) continue;
      await rm(join(this.#directory, name), { force: true });
      removed.push(name);
    }
    return removed;
  }
}

/** A boot file on its way in. Whoever began it calls `abandon` in the end; after `finish` that does nothing. */
export class BootUpload {
  readonly #store: BootStore;
  readonly #directory: string;
  readonly #unfinished: string;
  readonly #file: FileHandle;
  readonly #hash: Hash = createHash("sha256");
  readonly #sizeBytes: number;
  readonly #digest: string | undefined;
  #receivedBytes = 0;
  #open = true;

  private constructor(
    options: { store: BootStore; directory: string; sizeBytes: number; digest?: string },
    unfinished: string,
    file: FileHandle,
  ) {
    this.#store = options.store;
    this.#directory = options.directory;
    this.#sizeBytes = options.sizeBytes;
    this.#digest = options.digest;
    this.#unfinished = unfinished;
    this.#file = file;
  }

  /** Opened by `BootStore.receive`. */
  static async begin(options: {
    store: BootStore;
    directory: string;
    sizeBytes: number;
    digest?: string;
  }): Promise<BootUpload> {
    const unfinished = unfinishedName(join(options.directory, "boot"));
    try {
      return new BootUpload(options, unfinished, await open(unfinished, "wx", 0o600));
    } catch (error) {
      throw asRoomError(error, unfinished);
    }
  }

  /** Bytes that have arrived. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Adds the piece at `offset`, which must follow the one before. @throws AgentError `bad-boot-file`. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    if (!this.#open || offset !== this.#receivedBytes || offset + bytes.length > this.#sizeBytes) {
      throw new AgentError(
        "bad-boot-file",
        `a boot file of ${this.#sizeBytes} bytes came with ${bytes.length} bytes at ${offset}, where ${this.#receivedBytes} was next`,
      );
    }
    this.#receivedBytes += bytes.length;
    this.#hash.update(bytes);
    try {
      // A write stops short where a disk is full, and fails only when it is gone on with.
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, offset + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw asRoomError(error, this.#unfinished);
    }
  }

  /** Puts the file into the store and holds it. @throws AgentError `bad-boot-file` when it is incomplete or other than announced. */
  async finish(): Promise<BootFileHold> {
    if (this.#receivedBytes !== this.#sizeBytes) {
      throw new AgentError(
        "bad-boot-file",
        `a boot file ended after ${this.#receivedBytes} of ${this.#sizeBytes} bytes`,
      );
    }
    const digest = this.#hash.digest("hex");
    if (this.#digest !== undefined && digest !== this.#digest) {
      throw new AgentError(
        "bad-boot-file",
        `a boot file announced as ${this.#digest} has the content of ${digest}`,
      );
    }
    const hold = this.#store.hold(digest);
    try {
      await this.#file.sync();
      await rename(this.#unfinished, hold.path);
      await syncDirectory(this.#directory);
    } catch (error) {
      hold.letGo();
      throw error;
    }
    return hold;
  }

  /** Closes the upload and removes what did not become a boot file. May be called twice. */
  async abandon(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    await rm(this.#unfinished, { force: true });
  }
}

async function checkSource(from: FileHandle, source: string): Promise<{ size: number }> {
  const found = await from.stat();
  if (!found.isFile()) throw new AgentError("bad-boot-file", `the boot file ${source} is not a regular file`);
  if (found.size === 0) throw new AgentError("bad-boot-file", `the boot file ${source} is empty`);
  return found;
}

/** At once: a child's start waits for it, and a turn of the thread pool takes fifty times as long as the system call. */
function sizeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.size;
}
