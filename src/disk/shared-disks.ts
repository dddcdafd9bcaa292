import { chmod, chown, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { assert } from "../base/index.js";
import type { Disk, Entry } from "./disk-entry.js";
import { copyFile, type CopyFollower } from "./copy-file.js";
import { DiskDirectories } from "./disk-directories.js";
import { asDiskError, checkedSize } from "./disk-files.js";
import { recordedTenant, type DiskParent, type DiskRecord } from "./disk-record.js";
import type { Backing } from "./empty-qcow2.js";
import type { HeldImage } from "./images.js";
import { syncDirectory } from "./synced.js";

const MODE_BITS = 0o777;
const FROZEN_MODE = 0o444;

/** What the store does for its shared disks. */
export interface SharedDisksHost {
  save(id: string): Promise<void>;
  hold(parent: DiskParent | undefined, tenant: string | undefined): Promise<HeldImage | undefined>;
  below(
    parent: DiskParent | undefined,
    image: HeldImage | undefined,
    tenant: string | undefined,
  ): { sizeBytes: number } | undefined;
}

/**
 * Disks of a store whose files lie where hosts share them, until they are brought home:
 *
 *     shared ──bringHome──▶ here, and still there ──settleHome──▶ here
 */
export class SharedDisks {
  readonly #own: DiskDirectories;
  readonly #disks: Map<string, Entry>;
  readonly #host: SharedDisksHost;

  /** @param disks those of the store. */
  constructor(own: DiskDirectories, disks: Map<string, Entry>, host: SharedDisksHost) {
    this.#own = own;
    this.#disks = disks;
    this.#host = host;
  }

  /** Makes the file of a disk that is known here already; without it, it is known no more. Errors as those of the file system. */
  async make(record: DiskRecord, below: Backing | undefined): Promise<void> {
    const { id, sharedAt = "" } = record;
    try {
      await new DiskDirectories(sharedAt).make(record, { over: below });
    } catch (error) {
      await this.clear(record);
      await this.#own.clear(id);
      throw error;
    }
  }

  /** Removes what lies of a disk where hosts share it. */
  async clear({ id, sharedAt }: Pick<DiskRecord, "id" | "sharedAt">): Promise<void> {
    if (sharedAt !== undefined) await new DiskDirectories(sharedAt).clear(id);
  }

  /**
   * Copies the file of a disk to this host's own directory: from here on it is read, and perhaps written, there. Nobody writes it meanwhile. May be called again.
   * @throws DiskError `no-room`, `cancelled`, the file system's errors.
   */
  async bringHome(id: string, follower: CopyFollower = {}): Promise<void> {
    const entry = this.#disks.get(id);
    const { sharedAt } = entry?.record ?? {};
    if (entry?.isShared !== true || sharedAt === undefined) return;
    const [from, to] = [new DiskDirectories(sharedAt).pathOf(id), this.#own.pathOf(id)];
    const copy = `${to}.new`;
    try {
      const { uid, mode } = await stat(from);
      await copyFile(from, copy, follower);
      if (process.geteuid?.() === 0) await chown(copy, uid, uid);
      await chmod(copy, mode & MODE_BITS);
      await rename(copy, to);
      await syncDirectory(dirname(to));
    } catch (error) {
      throw asDiskError(error, this.#own.path);
    }
    entry.isShared = false;
  }

  /** Nobody reads a disk any more where it was shared: what lies there goes. May be called again. */
  async settleHome(id: string): Promise<void> {
    const entry = this.#disks.get(id);
    if (entry === undefined) return;
    const { sharedAt, ...record } = entry.record;
    if (sharedAt === undefined || entry.isShared === true) return;
    // First what is there: nobody would remove what is left of it once this is noted.
    await this.clear(entry.record);
    entry.record = record;
    await this.#host.save(id);
  }

  /**
   * Takes a frozen copy of a disk that a guest wrote on another host, under the uuid it has there.
   * @param options.file which nobody writes any more.
   * @param options.adoptedFor the guest, until whose end it stays.
   * @throws DiskError `no-such-disk`, `no-such-image`, `bad-size`, `too-deep`, `no-room`.
   */
  async adopt(
    options: Required<Pick<DiskRecord, "id" | "sizeBytes" | "adoptedFor">> & {
      parent?: DiskParent;
      tenant?: string;
      file: string;
      createdAtMs: number;
    },
  ): Promise<Disk> {
    const { file, tenant, ...known } = options;
    const { id, parent, sizeBytes } = known;
    assert(!this.#disks.has(id), `disk ${id} is not here yet`);
    const image = await this.#host.hold(parent, tenant);
    try {
      checkedSize(sizeBytes, this.#host.below(parent, image, tenant)?.sizeBytes);
      const record: DiskRecord = { version: 1, ...known, ...recordedTenant(tenant), frozen: true };
      await this.#own.make(record, { copyOf: file });
      await this.#own.own(id, 0, FROZEN_MODE);
      this.#disks.set(id, { record, image, isAway: false });
      return record;
    } catch (error) {
      image?.letGo();
      throw asDiskError(error, this.#own.path);
    }
  }

  /** What was adopted for this guest is needed no longer than other disks. @returns which those are. */
  async disown(guest: string): Promise<string[]> {
    const adopted = [...this.#disks.values()].filter(({ record }) => record.adoptedFor === guest);
    for (const entry of adopted) {
      const { adoptedFor: _, ...record } = entry.record;
      entry.record = record;
      await this.#host.save(record.id);
    }
    return adopted.map(({ record }) => record.id);
  }
}
