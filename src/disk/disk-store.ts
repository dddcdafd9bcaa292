/**
 * The differencing disks of a host: `disks/<uuid>/{disk.qcow2,disk.json}`. Each stands on another one, on a base disk, or on nothing:
 *
 *     base disk ◀── A (frozen) ◀── B (frozen) ◀── C   written by one guest
 *                          └─────────────── ◀── D   written by another
 * One that has others on it is frozen: its file is read-only and nobody's, and nothing here writes or removes it. A disk is made beside its place and renamed, so that a crash
 * leaves none half made. Emulators pass through the directory and cannot list it: a disk is found by those who know its name, and its file's owner and mode say what they may.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { assert, DEFAULT_TENANT, messageOf } from "../base/index.js";
import { DiskDirectories, UNFINISHED_PREFIX } from "./disk-directories.js";
import {
  asDiskError,
  checkedSize,
  claimed,
  diskLayer,
  imageLayer,
  noSuchDisk,
  tooDeep,
} from "./disk-files.js";
import type { Backing } from "./empty-qcow2.js";
import {
  isDiskOf,
  isLentTo,
  parseDiskRecord,
  recordedTenant,
  type DiskLoan,
  type DiskParent,
  type DiskRecord,
  withoutLoan,
} from "./disk-record.js";
import type { ChainLayer, Disk, DiskStoreOptions, Entry, ExpectedDisk, NewDisk } from "./disk-entry.js";
import { DiskError } from "./errors.js";
import type { HeldImage, HoldOptions } from "./images.js";
import { MAX_CHAIN_DISKS } from "./limits.js";
import { SharedDisks } from "./shared-disks.js";
import { removeUnused } from "./unused-disks.js";

export class DiskStore {
  readonly #options: DiskStoreOptions;
  readonly #directories: DiskDirectories;
  readonly #disks = new Map<string, Entry>();
  /** Disks whose record cannot be read, or whose base disk is not there: left as they are. */
  readonly #unreadable = new Set<string>();
  /** Disks that are being merged: nothing new is put over them. */
  readonly #claimed = new Set<string>();
  /** Disks whose files lie, or lay, where hosts share them. */
  readonly shared: SharedDisks;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: DiskStoreOptions) {
    this.#options = options;
    this.#directories = new DiskDirectories(options.directory);
    this.shared = new SharedDisks(this.#directories, this.#disks, {
      save: (id) => this.#save(id),
      hold: (parent, tenant) => this.#holdBelow(parent, tenant),
      below: (parent, image, tenant) => this.#below(parent, image, tenant),
    });
  }

  /** Opens the store, made when missing, and removes what a crash left half made. */
  static async open(options: DiskStoreOptions): Promise<DiskStore> {
    const store = new DiskStore(options);
    await mkdir(options.directory, { recursive: true });
    await chmod(options.directory, 0o711);
    for (const name of await readdir(options.directory)) {
      if (name.startsWith(UNFINISHED_PREFIX)) await rm(join(options.directory, name), { recursive: true });
      else if (!name.startsWith(".")) await store.#load(name);
    }
    return store;
  }

  /** Where its emulators find disks. */
  get directory(): string {
    return this.#options.directory;
  }

  /** By age. */
  list(): Disk[] {
    return [...this.#disks.values()]
      .map(({ record }) => record)
      .toSorted((left, right) => left.createdAtMs - right.createdAtMs);
  }

  /** @param tenant when given, another one's disk is not there. @throws DiskError `no-such-disk`. */
  get(id: string, tenant?: string): Disk {
    return this.#entry(id, tenant).record;
  }

  /** Whether there are disks that cannot be read, which may stand on any other. */
  get hasUnreadable(): boolean {
    return this.#unreadable.size > 0;
  }

  /** The disks that stand directly on this one. */
  childrenOf(id: string): Disk[] {
    return this.list().filter(({ parent }) => parent !== undefined && "disk" in parent && parent.disk === id);
  }

  /** The file of a disk. */
  pathOf(id: string): string {
    return this.#directoriesOf(id).pathOf(id);
  }

  /** As `get`; undefined when there is none. */
  find(id: string): Disk | undefined {
    return this.#disks.get(id)?.record;
  }

  has(id: string): boolean {
    return this.#disks.has(id);
  }

  /** Where the file of a disk on its way is read, whichever agent serves it. */
  socketOf(id: string): string {
    return this.#directories.socketOf(id);
  }

  /** Where what has come of a disk's file is kept. */
  fillingOf(id: string): string {
    return this.#directories.fillingOf(id);
  }

  /** This disk and all that it stands on, the newest first and a base disk last. @throws DiskError `no-such-disk`, `too-deep`. */
  chainOf(id: string): ChainLayer[] {
    const chain: ChainLayer[] = [];
    for (let next: string | undefined = id; next !== undefined;) {
      const { record, image, isAway, isShared } = this.#entry(next);
      const socket = isAway ? this.socketOf(next) : undefined;
      chain.push(diskLayer(next, this.pathOf(next), { socket, isShared }));
      if (image !== undefined) chain.push(imageLayer(image));
      if (chain.length > MAX_CHAIN_DISKS) throw tooDeep(id);
      next = record.parent !== undefined && "disk" in record.parent ? record.parent.disk : undefined;
    }
    return chain;
  }

  /**
   * Makes an empty disk over another disk, a base disk, or nothing, for one guest to write. What is below must not be written from the moment on in which somebody reads
   * or writes the new one.
   * @throws DiskError `no-such-disk`, `no-such-image`, `bad-size`, `too-deep`, `no-room`.
   */
  async create(options: NewDisk): Promise<Disk> {
    const { parent, writer, tenant, sharedAt } = options;
    const image = await this.#holdBelow(parent, tenant);
    try {
      const below = this.#below(parent, image, tenant);
      const sizeBytes = checkedSize(options.sizeBytes ?? below?.sizeBytes, below?.sizeBytes);
      const record: DiskRecord = {
        version: 1,
        id: randomUUID(),
        ...(parent === undefined ? {} : { parent }),
        ...recordedTenant(tenant),
        sizeBytes,
        writer,
        frozen: false,
        ...(sharedAt === undefined ? {} : { sharedAt }),
        createdAtMs: this.#options.clock.wallMs(),
      };
      // First what is known of it: what lies elsewhere is found again so, and removed, after a crash.
      await this.#directories.make(record, sharedAt === undefined ? { over: below } : "to come");
      if (sharedAt !== undefined) await this.shared.make(record, below);
      this.#disks.set(record.id, { record, image, isAway: false, isShared: sharedAt !== undefined });
      return record;
    } catch (error) {
      image?.letGo();
      throw asDiskError(error, sharedAt ?? this.#options.directory);
    }
  }

  /**
   * Enters a frozen disk of another host under the uuid it has there; its file is to come (`arrived`).
   * @throws DiskError `no-such-disk`, `no-such-image`, `bad-size`, `too-deep`, `no-room`.
   */
  async expect(options: ExpectedDisk): Promise<Disk> {
    const { id, parent, tenant, arriving } = options;
    assert(!this.#disks.has(id), `disk ${id} is not here yet`);
    const image = await this.#holdBelow(parent, tenant);
    try {
      const below = this.#below(parent, image, tenant);
      const record: DiskRecord = {
        version: 1,
        id,
        ...(parent === undefined ? {} : { parent }),
        ...recordedTenant(tenant),
        sizeBytes: checkedSize(options.sizeBytes, below?.sizeBytes),
        frozen: true,
        arriving,
        createdAtMs: this.#options.clock.wallMs(),
      };
      await this.#directories.make(record, "to come");
      this.#disks.set(id, { record, image, isAway: true });
      return record;
    } catch (error) {
      image?.letGo();
      throw asDiskError(error, this.#options.directory);
    }
  }

  /** All of a disk's file has come and is safe: from here on it is read where it lies. May be called twice. */
  async arrived(id: string, file: string): Promise<void> {
    const entry = this.#entry(id);
    if (!entry.isAway) return;
    await this.#directories.place(id, file);
    entry.isAway = false;
  }

  /** Nobody reads a disk that has arrived another way any more: what was needed for that goes. */
  async settle(id: string): Promise<void> {
    const entry = this.#entry(id);
    const { arriving: _, ...record } = entry.record;
    // First what was needed: what is left of it has nobody that would remove it once this is noted.
    await rm(this.fillingOf(id), { recursive: true, force: true });
    entry.record = record;
    await this.#save(id);
  }

  /** Another host reads a frozen disk's file: it stays until that is given back. */
  async lend(id: string, loan: DiskLoan): Promise<void> {
    const entry = this.#entry(id);
    assert(entry.record.frozen && !entry.isAway, "what is lent never changes, and is here");
    entry.record = { ...entry.record, lent: [...(entry.record.lent ?? []), loan] };
    await this.#save(id);
  }

  isLent(id: string, loan: DiskLoan): boolean {
    return isLentTo(this.get(id), loan);
  }

  /** Ends a loan, if there is such a one. */
  async takeBack(id: string, loan: DiskLoan): Promise<void> {
    const entry = this.#disks.get(id);
    if (entry === undefined || !isLentTo(entry.record, loan)) return;
    entry.record = withoutLoan(entry.record, loan);
    await this.#save(id);
  }

  /** Has the user of an emulator own the disk's file, which nobody else may read. */
  async give(id: string, uid: number): Promise<void> {
    const { record } = this.#entry(id);
    assert(!record.frozen, "a frozen disk is nobody's");
    await this.#directoriesOf(id).own(id, uid, 0o600);
  }

  /** Lets other emulators open the file for reading, ahead of it being frozen. */
  async share(id: string): Promise<void> {
    if (!this.#entry(id).record.frozen) await chmod(this.pathOf(id), 0o644);
  }

  /** Takes `share` back. */
  async unshare(id: string): Promise<void> {
    if (!this.#entry(id).record.frozen) await chmod(this.pathOf(id), 0o600);
  }

  /** From here on nobody writes it; whoever has it open for that has been told to stop before. May be called twice. */
  async freeze(id: string): Promise<void> {
    const entry = this.#entry(id);
    if (entry.record.frozen) return;
    const { writer: _, ...record } = entry.record;
    // At once for everybody who asks; on disk when the promise resolves.
    entry.record = { ...record, frozen: true };
    await this.#directoriesOf(id).own(id, 0, 0o444);
    await this.#save(id);
  }

  /** Keeps everybody from putting anything over these disks until the returned function is called: they are being merged. */
  claim(ids: readonly string[]): () => void {
    for (const id of ids) this.#claimed.add(id);
    return () => {
      for (const id of ids) this.#claimed.delete(id);
    };
  }

  /**
   * The content of a frozen disk under another uuid, for one guest to write. Other hosts may have the content that the old uuid stands for, so that is never written again;
   * it is to be removed before this one is written: both are the same file.
   * @throws DiskError `no-such-disk`, `no-room`.
   */
  async renew(id: string, { as, writer }: { as: string; writer: string }): Promise<Disk> {
    const { record: old, isAway } = this.#entry(id);
    assert(old.frozen && !isAway && old.lent === undefined, "a disk that is renewed is here, and nobody's");
    const { parent, sizeBytes, tenant } = old;
    const image = await this.#holdBelow(parent, tenant, { evenDamaged: true });
    try {
      const createdAtMs = this.#options.clock.wallMs();
      const below = parent === undefined ? {} : { parent };
      const own = { writer, frozen: false, ...recordedTenant(tenant) };
      const record = { version: 1, id: as, ...below, sizeBytes, ...own, createdAtMs } as const;
      await this.#directories.make(record, { sameAs: id });
      this.#disks.set(record.id, { record, image, isAway: false });
      return record;
    } catch (error) {
      image?.letGo();
      throw asDiskError(error, this.#options.directory);
    }
  }

  /** From here on a disk stands on something else, which reads the same from there. @throws DiskError `no-such-disk`, `no-such-image`. */
  async restand(id: string, parent: DiskParent | undefined): Promise<void> {
    const entry = this.#entry(id);
    const image = await this.#holdBelow(parent, entry.record.tenant, { evenDamaged: true });
    const { parent: _, ...record } = entry.record;
    entry.image?.letGo();
    entry.image = image;
    entry.record = parent === undefined ? record : { ...record, parent };
    await this.#save(id);
  }

  /** Removes a disk. @throws DiskError `has-children`, `no-such-disk`. */
  async remove(id: string): Promise<void> {
    const { image, record } = this.#entry(id);
    const children = this.childrenOf(id);
    if (children.length > 0) {
      const names = children.map((child) => child.id).join(", ");
      throw new DiskError("has-children", `disk ${id} has others on it (${names}); it is not removed`);
    }
    await this.shared.clear(record);
    const doomed = await this.#directories.doom(id);
    this.#disks.delete(id);
    image?.letGo();
    await doomed.removed();
  }

  /**
   * Removes these disks and what they stand on, from the top, as far as nobody needs it: a disk stays that has others on it, that is used, or
   * that somebody writes and that is not among these.
   * @returns what was removed.
   */
  removeUnused(ids: Iterable<string>, isUsed: (disk: Disk) => boolean): Promise<string[]> {
    return removeUnused(this, ids, isUsed);
  }

  /** The files stay, and so do the marks of base disks that are used: another host could remove those otherwise. */
  close(): void {
    this.#disks.clear();
  }

  #entry(id: string, tenant?: string): Entry {
    const entry = this.#disks.get(id);
    if (entry !== undefined && isDiskOf(entry.record, tenant)) return entry;
    throw noSuchDisk(id, { tenant, isUnreadable: this.#unreadable.has(id) });
  }

  /** Where a disk's file lies: in this host's own directory, or where hosts share it. */
  #directoriesOf(id: string): DiskDirectories {
    const { record, isShared } = this.#disks.get(id) ?? {};
    return isShared === true ? new DiskDirectories(record?.sharedAt ?? "") : this.#directories;
  }

  async #holdBelow(parent?: DiskParent, tenant?: string, how?: HoldOptions): Promise<HeldImage | undefined> {
    if (parent === undefined || !("image" in parent)) return undefined;
    return this.#options.images.hold(parent.image, tenant, how);
  }

  #below(
    parent: DiskParent | undefined,
    image: HeldImage | undefined,
    tenant = DEFAULT_TENANT,
  ): (Backing & { sizeBytes: number }) | undefined {
    if (image !== undefined) return { path: image.path, format: "raw", sizeBytes: image.sizeBytes };
    if (parent === undefined || !("disk" in parent)) return undefined;
    const { sizeBytes } = this.get(parent.disk, tenant);
    const chain = this.chainOf(parent.disk);
    if (chain.length >= MAX_CHAIN_DISKS) throw tooDeep(parent.disk);
    if (chain.some(({ id }) => this.#claimed.has(id))) throw claimed(parent.disk);
    return { path: this.pathOf(parent.disk), format: "qcow2", sizeBytes };
  }

  async #load(id: string): Promise<void> {
    const { log } = this.#options;
    const path = this.#directories.recordOf(id);
    try {
      const record = parseDiskRecord(path, await readFile(path, "utf8"));
      const image = await this.#holdBelow(record.parent, record.tenant, { evenDamaged: true });
      const isElsewhere = !existsSync(this.#directories.pathOf(id));
      const isAway = record.arriving !== undefined && isElsewhere;
      const isShared = record.sharedAt !== undefined && isElsewhere;
      this.#disks.set(id, { record, image, isAway, isShared });
    } catch (error) {
      this.#unreadable.add(id);
      log.error({ disk: id, problem: messageOf(error) }, "a disk is left as it is: it cannot be read");
    }
  }

  /** Writes what is known of a disk by then; one after the other. */
  #save(id: string): Promise<void> {
    const saving = this.#writing.then(async () => {
      const entry = this.#disks.get(id);
      if (entry !== undefined) await this.#directories.writeRecord(entry.record);
    });
    this.#writing = saving.catch(() => {});
    return saving;
  }
}
