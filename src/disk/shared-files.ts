/**
 * Files of disks that lie for a while in a directory which several hosts have, so that what one host's guest wrote is there when that host is not:
 *
 *     <directory>/<uuid>/disk.qcow2   what the guest has written
 *                        disk.json    what that stands on, for another host
 *     <directory>/.ramet-<host's id>  shows another host that it has the same directory
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, messageOf } from "../base/index.js";
import { DiskDirectories } from "./disk-directories.js";
import { parseDiskRecord, type DiskRecord } from "./disk-record.js";
import { DiskError } from "./errors.js";
import { MAX_SHARED_DISKS } from "./limits.js";
import { writeSynced } from "./synced.js";

/** Emulators have users of their own, which pass through the directory. */
const PASSED_BY_ALL = 0o001;

/** Disks whose files lie in such a directory, as far as they can be read. @throws DiskError `not-shared` when it is not there. */
export async function sharedDisks(directory: string): Promise<DiskRecord[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    throw notShared(directory, messageOf(error));
  });
  const found: DiskRecord[] = [];
  for (const name of names.filter((each) => !each.startsWith(".")).slice(0, MAX_SHARED_DISKS)) {
    const path = new DiskDirectories(directory).recordOf(name);
    try {
      found.push(parseDiskRecord(path, await readFile(path, "utf8")));
    } catch (error) {
      // Others may keep other things there.
      if (codeOf(error) !== "ENOENT" && codeOf(error) !== "ENOTDIR" && codeOf(error) !== "bad-record")
        throw error;
    }
  }
  return found;
}

const markOf = (directory: string, host: string): string => join(directory, `.ramet-${host}`);

/** Leaves in the directory what another host can see it has, too. @throws DiskError `not-shared`. */
export async function markShared(directory: string, mark: SharedMark): Promise<void> {
  try {
    await writeSynced(markOf(directory, mark.host), mark.token, { flags: "w" });
  } catch (error) {
    throw notShared(directory, messageOf(error));
  }
}

/** Shows another host that both have the same directory: `token` is the host's own word, in a file of its id. */
export interface SharedMark {
  host: string;
  token: string;
}

/** @throws DiskError `not-shared` when this host has not the directory that another one has marked, or emulators cannot pass through it. */
export async function requireShared(directory: string, mark: SharedMark): Promise<void> {
  let said: string;
  let mode: number;
  try {
    said = await readFile(markOf(directory, mark.host), "utf8");
    ({ mode } = await stat(directory));
  } catch (error) {
    const why =
      codeOf(error) === "ENOENT" ? "what the other host has written there is not here" : messageOf(error);
    throw notShared(directory, why);
  }
  if (said !== mark.token)
    throw notShared(directory, "what is here is not what the other host has written there");
  if ((mode & PASSED_BY_ALL) === 0)
    throw notShared(
      directory,
      "emulators, which have users of their own, cannot pass through it (chmod o+x)",
    );
}

function notShared(directory: string, why: string): DiskError {
  return new DiskError("not-shared", `${directory} is not a directory that both hosts can use: ${why}`);
}
