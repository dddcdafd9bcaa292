import { randomBytes } from "node:crypto";
import { writeSync } from "node:fs";
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "../../base/index.js";
import { AgentError } from "../errors.js";

/** Marks a file that was being written when the machine or the agent went down; such files are removed at start. */
export const UNFINISHED_SUFFIX = ".unfinished";

/**
 * Replaces a file in one step: whoever reads it, also after a power failure, finds the old content or the new one, whole.
 * (rename(2) is atomic; the file is synced before it so that the new name never leads to missing data, the directory after it.)
 */
export async function writeAtomically(path: string, content: string | Uint8Array): Promise<void> {
  const unfinished = unfinishedName(path);
  try {
    const file = await open(unfinished, "wx", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw asRoomError(error, path);
  }
  await syncDirectory(dirname(path));
}

/** A file system that is full, in words that say which; any other error as it is. */
export function asRoomError(error: unknown, path: string): unknown {
  const code = codeOf(error);
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  return new AgentError(
    "no-room",
    `the file system of ${dirname(path)} is full: make room there, or remove guests and boot files they use`,
    { cause: error },
  );
}

/** Writes all of `bytes` at an offset of an open file. @throws AgentError `no-room` that names the file system of `path`, or the file system's error. */
export function writeAll(fd: number, bytes: Uint8Array, offset: number, path: string): void {
  try {
    for (let done = 0; done < bytes.length;)
      done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
  } catch (error) {
    throw asRoomError(error, path);
  }
}

/** A name nobody else uses, beside `path`, that start-up recognises as unfinished. */
export function unfinishedName(path: string): string {
  return `${path}.${randomBytes(6).toString("hex")}${UNFINISHED_SUFFIX}`;
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** A file's text; undefined when there is no such file. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
