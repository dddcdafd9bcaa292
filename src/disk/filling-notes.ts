import { mkdir, open, readFile, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { Bitmap, codeOf } from "../base/index.js";
import { BLOCK_BYTES } from "./filling-limits.js";
import { DiskError } from "./errors.js";
import { CHUNK_DIGEST_BYTES, MAX_DISK_BYTES } from "./limits.js";
import { chunkCount } from "./content-digest.js";

/** The files of a disk under way, in a directory of its own. `noted` and `content` belong together; `filling.json` is there when all are. */
const CONTENT = "disk.raw";
const NOTED = "noted";
const CHUNKS = "expected";
const RECORD = "filling.json";

/** Without this file, what is left is no disk under way. */
export const FILLING_RECORD = RECORD;

/** The record first: without it, what is left is no disk under way. */
export const FILES_BESIDES_CONTENT = [RECORD, NOTED, CHUNKS] as const;

const VERSION = 1;
const record = z.object({
  version: z.literal(VERSION),
  sizeBytes: z.number().int().min(1).max(MAX_DISK_BYTES),
  checked: z.boolean(),
});

/** What is known of a disk under way when nobody works on it. */
export class FillingNotes {
  readonly sizeBytes: number;
  /** The content's file, in which what has not come is a hole. */
  readonly content: FileHandle;
  /** Digests of the chunks it must come to; undefined when nobody knows them. */
  readonly chunks: Uint8Array | undefined;
  /** Blocks whose content is on the disk, whatever happens to the machine. */
  readonly noted: Bitmap;
  readonly #file: FileHandle;

  private constructor(fields: {
    sizeBytes: number;
    content: FileHandle;
    chunks: Uint8Array | undefined;
    noted: Bitmap;
    file: FileHandle;
  }) {
    this.sizeBytes = fields.sizeBytes;
    this.content = fields.content;
    this.chunks = fields.chunks;
    this.noted = fields.noted;
    this.#file = fields.file;
  }

  static contentPath(directory: string): string {
    return join(directory, CONTENT);
  }

  /** Begins a disk of which nothing is here; what an earlier beginning left is replaced. */
  static async create(
    directory: string,
    options: { sizeBytes: number; chunks?: Uint8Array | undefined },
  ): Promise<void> {
    const { sizeBytes, chunks } = options;
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await write(join(directory, CONTENT), (file) => file.truncate(sizeBytes));
    await write(join(directory, NOTED), (file) => file.truncate(Math.ceil(blockCount(sizeBytes) / 8)));
    if (chunks !== undefined) await write(join(directory, CHUNKS), (file) => file.writeFile(chunks));
    const text = JSON.stringify({ version: VERSION, sizeBytes, checked: chunks !== undefined });
    const unfinished = join(directory, `.${RECORD}`);
    await write(unfinished, (file) => file.writeFile(text));
    await rename(unfinished, join(directory, RECORD));
    await sync(directory);
    await sync(dirname(directory));
  }

  /** @returns undefined when nothing was begun there, or not to the end. @throws DiskError `damaged` when its notes make no sense. */
  static async open(directory: string): Promise<FillingNotes | undefined> {
    const text = await readIfThere(join(directory, RECORD));
    if (text === undefined) return undefined;
    const parsed = record.safeParse(parseJson(text.toString("utf8")));
    if (!parsed.success) throw senseless(directory);
    const { sizeBytes, checked } = parsed.data;
    const chunks = checked ? await readIfThere(join(directory, CHUNKS)) : undefined;
    const chunkBytes = chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES;
    const bits = await readIfThere(join(directory, NOTED));
    const noted = new Bitmap(blockCount(sizeBytes));
    const isWhole =
      bits?.length === Math.ceil(noted.length / 8) && (!checked || chunks?.length === chunkBytes);
    if (bits === undefined || !isWhole) throw senseless(directory);
    noted.setBytes(0, bits);
    const content = await open(join(directory, CONTENT), "r+");
    try {
      if ((await content.stat()).size !== sizeBytes) throw senseless(directory);
      const file = await open(join(directory, NOTED), "r+");
      return new FillingNotes({ sizeBytes, content, chunks, noted, file });
    } catch (error) {
      await content.close();
      throw error;
    }
  }

  /** Notes blocks, all of which were written before: once their content is safe, and not before. */
  async note(blocks: readonly number[]): Promise<void> {
    if (blocks.length === 0) return;
    await this.content.datasync();
    let least = blocks[0] as number;
    let most = least;
    for (const block of blocks) {
      this.noted.set(block);
      least = Math.min(least, block);
      most = Math.max(most, block);
    }
    await this.#write(least, most);
  }

  /** What was noted of these blocks is not so any more: they were found wrong. */
  async forget({ first, count }: { first: number; count: number }): Promise<void> {
    if (this.noted.clearRun(first, count) > 0) await this.#write(first, first + count - 1);
  }

  async #write(least: number, most: number): Promise<void> {
    const first = least - (least % 8);
    const past = most - (most % 8) + 8;
    const bytes = this.noted.bytes(first, Math.min(past, this.noted.length) - first);
    await this.#file.write(bytes, 0, bytes.length, first / 8);
    await this.#file.datasync();
  }

  async close(): Promise<void> {
    await Promise.all([this.#file.close(), this.content.close()]);
  }
}

/** How many blocks a disk has; the last one may be shorter. */
export function blockCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES);
}

async function write(path: string, fill: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await fill(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function sync(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function senseless(directory: string): DiskError {
  return new DiskError(
    "damaged",
    `what is known of the disk under way in ${directory} makes no sense: remove it`,
  );
}
