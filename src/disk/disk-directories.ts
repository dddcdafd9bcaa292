import { chmod, chown, link, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { formatDiskRecord, type DiskRecord } from "./disk-record.js";
import { copyFile } from "./copy-file.js";
import { emptyQcow2, type Backing } from "./empty-qcow2.js";
import { syncDirectory, writeSynced } from "./synced.js";

export const UNFINISHED_PREFIX = ".unfinished-";
const CONTENT = "disk.qcow2";
const SOCKET = "nbd";
const FILLING = "filling";
const RECORD = "disk.json";
const PRIVATE = { flags: "w", mode: 0o600 } as const;

/**
 * What a disk's file holds at first: nothing, over what is below; what another disk's file holds, which it then is, too, or a copy of; or nothing
 * that is here yet.
 */
export type FirstContent =
  { over: Backing | undefined } | { sameAs: string } | { copyOf: string } | "to come";

/** The directories of differencing disks, one for each. One is made beside its place and renamed, and goes the same way: a crash leaves none half made. */
export class DiskDirectories {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  pathOf(id: string): string {
    return join(this.path, id, CONTENT);
  }

  /** Where the file of a disk on its way is read. */
  socketOf(id: string): string {
    return join(this.path, id, SOCKET);
  }

  /** Where what has come of a disk's file is kept. */
  fillingOf(id: string): string {
    return join(this.path, id, FILLING);
  }

  recordOf(id: string): string {
    return join(this.path, id, RECORD);
  }

  async make(record: DiskRecord, content: FirstContent): Promise<void> {
    const unfinished = join(this.path, `${UNFINISHED_PREFIX}${record.id}`);
    const file = join(unfinished, CONTENT);
    try {
      await mkdir(unfinished, { mode: 0o700 });
      if (content !== "to come") {
        if ("sameAs" in content) await link(this.pathOf(content.sameAs), file);
        else if ("copyOf" in content) await copyFile(content.copyOf, file);
        else await writeSynced(file, emptyQcow2(record.sizeBytes, content.over), PRIVATE);
      }
      await writeSynced(join(unfinished, RECORD), formatDiskRecord(record), PRIVATE);
      await chmod(unfinished, 0o711);
      await rename(unfinished, join(this.path, record.id));
      await syncDirectory(this.path);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      throw error;
    }
  }

  /** Removes all of a disk, as far as it is there, in whatever state. */
  async clear(id: string): Promise<void> {
    for (const name of [id, `${UNFINISHED_PREFIX}${id}`])
      await rm(join(this.path, name), { recursive: true, force: true });
  }

  /** Takes the name away, in one step: what is left then is removed by `removed`, or by the next start. */
  async doom(id: string): Promise<{ removed: () => Promise<void> }> {
    const doomed = join(this.path, `${UNFINISHED_PREFIX}${id}`);
    await rename(join(this.path, id), doomed);
    return { removed: () => rm(doomed, { recursive: true, force: true }) };
  }

  async writeRecord(record: DiskRecord): Promise<void> {
    const path = this.recordOf(record.id);
    await writeSynced(`${path}.new`, formatDiskRecord(record), PRIVATE);
    await rename(`${path}.new`, path);
    await syncDirectory(join(this.path, record.id));
  }

  /** All of a disk's file has come, and lies there. */
  async place(id: string, file: string): Promise<void> {
    await chmod(file, 0o444);
    await rename(file, this.pathOf(id));
    await syncDirectory(join(this.path, id));
  }

  async own(id: string, uid: number, mode: number): Promise<void> {
    const path = this.pathOf(id);
    if (process.geteuid?.() === 0) await chown(path, uid, uid);
    await chmod(path, mode);
  }
}
