import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { codeOf, messageOf } from "../base/index.js";
import { DiskError, isNoRoom } from "./errors.js";
import { MAX_DISK_BYTES } from "./limits.js";
import { isDigest } from "./names.js";
import { syncDirectory, writeSynced } from "./synced.js";

/** Most bytes of a file of JSON: whoever shares a directory could make one of any length. */
const MAX_RECORD_BYTES = 64 * 1024;

/** The name of an instance without an identifier; no identifier is like it. */
const UNNAMED = "@";

/** What a host's intention to remove an image is called begins with it. */
export const REMOVING_BY = "removing-";

const wall = z.number().int().min(0);

/** `image.json`: never changed once it is there. */
export const imageRecord = z.object({
  version: z.literal(1),
  digest: z.string().refine(isDigest),
  sizeBytes: z.number().int().min(1).max(MAX_DISK_BYTES),
  createdAtMs: wall,
});

/** `tenants/<tenant>/<identifier>.json`: one tenant's own view of the image. */
export const instanceRecord = z.object({ version: z.literal(1), sinceMs: wall });

/** `hosts/<host>.json`: what one host uses the image for, and when that was last changed. */
export const markRecord = z.object({
  version: z.literal(1),
  /** What the host calls itself, for people. */
  host: z.string().max(255),
  /** The tenants with chains over it; empty when there are none. */
  usedBy: z.array(z.string().max(63)).max(10_000),
  atMs: wall,
});

/** `damaged.json`: what was found wrong, and when. */
export const damageRecord = z.object({ version: z.literal(1), problem: z.string().max(2048), atMs: wall });

/**
 * Where things are in one image's directory:
 *
 *     disk.raw                            the bytes, 0444
 *     chunks                              the digest of each MiB
 *     image.json                          digest, size, since when
 *     tenants/<tenant>/<identifier>.json  who has it, and calls it what
 *     hosts/<host>.json                   which host uses it, or used it last
 *     damaged.json                        only after a check found it damaged
 *     removing-<host>                     while that host looks whether anybody uses it, to remove it otherwise
 */
export class ImageFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  get disk(): string {
    return join(this.directory, "disk.raw");
  }
  get chunks(): string {
    return join(this.directory, "chunks");
  }
  get record(): string {
    return join(this.directory, "image.json");
  }
  get damage(): string {
    return join(this.directory, "damaged.json");
  }
  get hosts(): string {
    return join(this.directory, "hosts");
  }
  get tenants(): string {
    return join(this.directory, "tenants");
  }
  host(id: string): string {
    return join(this.hosts, `${id}.json`);
  }
  removing(host: string): string {
    return join(this.directory, `${REMOVING_BY}${host}`);
  }
  tenant(tenant: string): string {
    return join(this.tenants, tenant);
  }
  instance(tenant: string, identifier: string | undefined): string {
    return join(this.tenant(tenant), `${identifier ?? UNNAMED}.json`);
  }
}

/** The identifier an instance's file is named by. */
export function identifierOf(name: string): string | undefined {
  const stem = name.slice(0, -".json".length);
  return stem === UNNAMED ? undefined : stem;
}

/** The names in a directory; none where there is no such directory. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw asDiskError(error, directory);
  }
}

/** The names of records in a directory; not those that are being written. */
export async function recordsIn(directory: string): Promise<string[]> {
  return (await namesIn(directory)).filter((name) => name.endsWith(".json") && !name.startsWith("."));
}

/** A record; undefined where there is none, or what is no whole record. Somebody else may have written it. */
export async function readRecord<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    // Whoever shares the directory could have put a pipe there.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      const found = await file.stat();
      if (!found.isFile() || found.size > MAX_RECORD_BYTES) return undefined;
      text = await file.readFile("utf8");
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isMissing(error) || codeOf(error) === "ELOOP") return undefined;
    throw asDiskError(error, path);
  }
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** Replaces a record in one step, in a directory that is there; durable when it returns. */
export async function writeRecord(path: string, record: object): Promise<void> {
  await replaceFile(path, `${JSON.stringify(record)}\n`);
}

/** Replaces a file in one step: whoever reads it, on another host too, finds the old one or the new one, whole. */
export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const unfinished = join(dirname(path), `.${randomUUID()}`);
  try {
    await writeSynced(unfinished, content);
    await rename(unfinished, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(unfinished, { force: true }).catch(() => {});
    throw asDiskError(error, path);
  }
}

/** The bytes of an image's `chunks`. @throws DiskError */
export async function readChunks(files: ImageFiles): Promise<Uint8Array> {
  try {
    return await readFile(files.chunks);
  } catch (error) {
    if (isMissing(error)) return new Uint8Array(0);
    throw asDiskError(error, files.chunks);
  }
}

/** Whether something is not there; on a shared directory also when it has just gone. */
export function isMissing(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ESTALE" || code === "ENOTDIR";
}

/** Whether a directory could not be renamed because there is one already with something in it. */
export function isThere(error: unknown): boolean {
  const code = codeOf(error);
  return code === "EEXIST" || code === "ENOTEMPTY";
}

/** What a file system refused, in words that say what to do where something can be done. */
export function asDiskError(error: unknown, path: string): unknown {
  const code = codeOf(error);
  if (error instanceof DiskError) return error;
  if (isNoRoom(error)) {
    return new DiskError(
      "no-room",
      `the file system of ${dirname(path)} is full: make room there; ramet image prune removes images nobody uses`,
      { cause: error },
    );
  }
  if (code === "EIO")
    return new DiskError("damaged", `${path} cannot be read or written: ${messageOf(error)}`, {
      cause: error,
    });
  return error;
}
