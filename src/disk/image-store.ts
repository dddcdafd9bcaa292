import { chmod, mkdir, rm, stat } from "node:fs/promises";
import {
  assert,
  DEFAULT_TENANT,
  messageOf,
  sleep,
  withDeadline,
  type Clock,
  type Log,
} from "../base/index.js";
import { chunkCount, digestFile, rootDigest, type Content, type OnProgress } from "./content-digest.js";
import { DiskError } from "./errors.js";
import type { FindData } from "./holes.js";
import { ImageDirectories, type FoundImage } from "./image-directories.js";
import {
  asDiskError,
  damageRecord,
  ImageFiles,
  isMissing,
  readChunks,
  readRecord,
  writeRecord,
} from "./image-files.js";
import { ImageInstances, type Instance } from "./image-instances.js";
import { ImagePruning, type PruneOptions } from "./image-pruning.js";
import { ImagePublishing } from "./image-publishing.js";
import { ImageSource } from "./image-source.js";
import type {
  HeldImage,
  HoldOptions,
  Images,
  ImageView,
  ImportOptions,
  StoredImage,
  UnfinishedImage,
} from "./images.js";
import { CHUNK_BYTES, CHUNK_DIGEST_BYTES, OPEN_DEADLINE_MS, RACE_ATTEMPTS, RACE_PAUSE_MS } from "./limits.js";
import { isDigest, requireDigest, requireIdentifier, requireTenantName } from "./names.js";
import type { QemuImg } from "./qemu-img.js";
import { UseMarks, type HostMark } from "./use-marks.js";

/** Holds what is being checked; no tenant is called so. */
const CHECKING = "#check";

/** Damaged places that are named; of the others it is only said how many there are. */
const MAX_NAMED_PLACES = 4;

export interface ImageStoreOptions {
  /** Searched in this order; what is imported goes to the first one that is there. The first is made when it is missing and `makeFirst`. */
  directories: readonly string[];
  makeFirst: boolean;
  host: HostMark;
  qemuImg: QemuImg;
  findData: FindData;
  /** The user qemu-img reads strangers' files as; undefined for the agent's own. */
  uid?: number | undefined;
  clock: Clock;
  log: Log;
}

/**
 * Base disks of a host, in directories that it may share with others; see `Images` for what may be asked of it.
 *
 *     import: file ─▶ .unfinished-…/ (copied, converted, digested, synced) ─▶ renamed to its digest, in one step
 *     prune:  unused ─▶ renamed to .removing-…/ ─▶ marks looked at again ─▶ removed, or put back
 */
export class ImageStore implements Images {
  readonly #options: ImageStoreOptions;
  readonly #directories: ImageDirectories;
  readonly #instances: ImageInstances;
  readonly #marks: UseMarks;
  readonly #publishing: ImagePublishing;
  readonly #pruning: ImagePruning;

  private constructor(options: ImageStoreOptions) {
    const { host, clock, log } = options;
    this.#options = options;
    this.#directories = new ImageDirectories({ paths: options.directories, hostId: host.id, clock, log });
    this.#instances = new ImageInstances(this.#directories);
    this.#marks = new UseMarks({ host, clock, log });
    const parts = { directories: this.#directories, instances: this.#instances, marks: this.#marks };
    this.#pruning = new ImagePruning({ ...parts, clock, log });
    this.#publishing = new ImagePublishing({
      ...parts,
      clock,
      log,
      hold: (digest, tenant) => this.hold(digest, tenant),
    });
  }

  /** Opens the store, and removes what a crash of this host left half made. */
  static async open(options: ImageStoreOptions): Promise<ImageStore> {
    const first = options.directories[0];
    assert(first !== undefined, "images lie in one directory at least");
    // Emulators pass through to what they have been told of, and cannot list it.
    if (options.makeFirst && (await mkdir(first, { recursive: true })) !== undefined)
      await chmod(first, 0o711);
    const store = new ImageStore(options);
    await store.#within("what was left half made is removed", store.#directories.clean());
    return store;
  }

  /** What an earlier agent used and this one has not taken again is not used any more. To be called when all chains have been found. */
  async settle(): Promise<void> {
    await this.#within("what is not used any more is noted", this.#settle());
  }

  /** Waits for what is being written; nothing may be asked of it after that. */
  async close(): Promise<void> {
    await this.#publishing.close();
    await this.#marks.close();
  }

  async import(path: string, options: ImportOptions): Promise<ImageView> {
    const { tenant, identifier, onProgress, signal } = options;
    requireTenantName(tenant);
    if (identifier !== undefined) requireIdentifier(identifier);
    const source = await ImageSource.open(path, options.format);
    try {
      const files = await this.#directories.makeUnfinished();
      try {
        const content = await source.bring(files, {
          ...this.#options,
          uid: this.#options.uid,
          onProgress,
          signal,
        });
        const sinceMs = this.#options.clock.wallMs();
        return await this.#view(await this.#publishing.give(files, content, { tenant, identifier, sinceMs }));
      } finally {
        this.#publishing.drop(files);
      }
    } finally {
      await source.close();
    }
  }

  async assign(digest: string, as: { tenant: string; identifier?: string | undefined }): Promise<ImageView> {
    const { tenant, identifier } = as;
    requireDigest(digest);
    requireTenantName(tenant);
    if (identifier !== undefined) requireIdentifier(identifier);
    const sinceMs = this.#options.clock.wallMs();
    return this.#view(await this.#publishing.assign(digest, { tenant, identifier, sinceMs }));
  }

  async list(tenant: string): Promise<ImageView[]> {
    requireTenantName(tenant);
    const views: ImageView[] = [];
    for (const instance of await this.#instances.of(tenant)) views.push(await this.#view(instance));
    return views;
  }

  async find(reference: string, tenant: string): Promise<ImageView> {
    requireTenantName(tenant);
    return this.#view(await this.#instances.find(reference, tenant));
  }

  /** Every image there is, with all who have and use it: for whoever runs the host. */
  async stored(): Promise<StoredImage[]> {
    const stored: StoredImage[] = [];
    for (const image of await this.#directories.all()) {
      const owners = await this.#instances.ownersOf(image);
      const { lastMs, otherHosts, tenants } = await this.#marks.useOf(image.files, image.digest);
      const found = await stat(image.files.disk).catch(() => undefined);
      stored.push({
        digest: image.digest,
        sizeBytes: image.sizeBytes,
        allocatedBytes: (found?.blocks ?? 0) * 512,
        directory: image.directory,
        owners: owners.map(({ tenant, identifier }) => ({ tenant, identifier })),
        usedBy: [...tenants].sort(),
        otherHosts,
        lastUsedMs: Math.max(lastMs, image.createdAtMs),
        problem: await problemOf(image.files),
      });
    }
    return stored.sort((one, other) => (one.digest < other.digest ? -1 : 1));
  }

  async has(digest: string): Promise<boolean> {
    return isDigest(digest) && (await this.#directories.find(digest)) !== undefined;
  }

  /** Whether the bytes are here, and no check has found them damaged. As `has`. */
  async hasSound(digest: string): Promise<boolean> {
    const found = isDigest(digest) ? await this.#directories.find(digest) : undefined;
    return found !== undefined && (await problemOf(found.files)) === undefined;
  }

  async hold(
    digest: string,
    tenant = DEFAULT_TENANT,
    { evenDamaged = false }: HoldOptions = {},
  ): Promise<HeldImage> {
    requireTenantName(tenant);
    const held = await this.#hold(digest, tenant, { evenDamaged });
    const problem = evenDamaged ? undefined : await problemOf(held.files);
    if (problem === undefined) return held.image;
    held.image.letGo();
    throw damaged(digest.slice(0, 12), problem);
  }

  async begin(): Promise<UnfinishedImage> {
    const files = await this.#directories.makeUnfinished();
    return this.#publishing.unfinished(files);
  }

  adopt(directory: string): UnfinishedImage {
    return this.#publishing.unfinished(new ImageFiles(directory));
  }

  /**
   * Digests an image's bytes and compares. What is wrong is noted, so that nobody begins to use it; importing the same content again puts it right.
   * @throws DiskError `damaged`, naming where; `no-such-image`, `cancelled`.
   */
  async verify(
    reference: string,
    options: { tenant: string; onProgress?: OnProgress | undefined; signal?: AbortSignal | undefined },
  ): Promise<ImageView> {
    requireTenantName(options.tenant);
    const instance = await this.#instances.find(reference, options.tenant);
    const { digest } = instance.image;
    const { image, files } = await this.#hold(digest, CHECKING);
    try {
      const problem = await this.#check(instance.image, { ...options, files });
      if (problem === undefined) {
        await rm(files.damage, { force: true });
        return await this.#view(instance);
      }
      await writeRecord(files.damage, { version: 1, problem, atMs: this.#options.clock.wallMs() });
      throw damaged(instance.identifier ?? digest.slice(0, 12), problem);
    } finally {
      image.letGo();
    }
  }

  /**
   * Takes an image from a tenant. Its bytes stay, whoever else may have or use them, until they are pruned.
   * @throws DiskError `no-such-image`, `in-use` when chains of this tenant's use it and no other name for it would be left.
   */
  async remove(reference: string, tenant: string): Promise<ImageView> {
    requireTenantName(tenant);
    const instance = await this.#instances.find(reference, tenant);
    const view = await this.#view(instance);
    const all = (await this.#instances.of(tenant)).filter(({ image }) => image.digest === view.digest);
    if (view.isUsed && all.length === 1) {
      throw new DiskError(
        "in-use",
        `image ${reference} is used by disks of guests; remove those guests first, or flatten their disks`,
      );
    }
    await this.#instances.remove(instance);
    return view;
  }

  /** Removes images nobody has used for so long, and what other hosts left unfinished long ago. Returns those removed. */
  async prune(options: PruneOptions): Promise<StoredImage[]> {
    await this.#directories.cleanAfterOthers();
    return this.#pruning.prune(await this.stored(), options);
  }

  async #settle(): Promise<void> {
    for (const { files, digest } of await this.#directories.all()) await this.#marks.settle(files, digest);
  }

  /** An agent has guests to take over: it does not wait for a file server that does not answer, which may go on when it does. */
  async #within(what: string, work: Promise<void>): Promise<void> {
    const { clock, log } = this.#options;
    try {
      await withDeadline(clock, OPEN_DEADLINE_MS, what, work);
    } catch (error) {
      log.error({ problem: messageOf(error) }, "images were not tidied up");
    }
  }

  /** Another host may be about to find that it must not remove the image after all: it puts it back at once. */
  async #hold(
    digest: string,
    tenant: string,
    how: HoldOptions = {},
  ): Promise<{ image: HeldImage; files: ImageFiles }> {
    requireDigest(digest);
    await this.#pruning.whenDone(digest);
    for (let attempt = 0; attempt < RACE_ATTEMPTS; attempt += 1) {
      if (attempt > 0) await sleep(this.#options.clock, RACE_PAUSE_MS);
      const found = await this.#directories.find(digest);
      if (found === undefined && attempt === 0) break;
      if (found === undefined) continue;
      const held = await this.#take(found, tenant, how);
      if (held !== undefined) return { image: held, files: found.files };
    }
    throw new DiskError("no-such-image", `there is no image ${digest.slice(0, 12)}… on this host`);
  }

  /** The mark first, then a look whether the image is still where it was, and stays there; undefined when it is not. */
  async #take(found: FoundImage, tenant: string, how: HoldOptions): Promise<HeldImage | undefined> {
    const { digest, files, sizeBytes } = found;
    let letGo: (() => void) | undefined;
    try {
      letGo = await this.#marks.take(files, digest, tenant);
      if (!(await this.#directories.whenLeft(files))) {
        letGo();
        return undefined;
      }
      const { size } = await stat(files.disk);
      if (size === sizeBytes || how.evenDamaged === true)
        return { digest, sizeBytes, path: files.disk, letGo };
      letGo();
    } catch (error) {
      letGo?.();
      if (isMissing(error)) return undefined;
      throw asDiskError(error, files.disk);
    }
    throw new DiskError("damaged", `${files.disk} is not ${sizeBytes} bytes long; import the image again`);
  }

  /** What is wrong with an image's bytes; undefined when nothing is. */
  async #check(
    image: FoundImage,
    options: { files: ImageFiles; onProgress?: OnProgress | undefined; signal?: AbortSignal | undefined },
  ): Promise<string | undefined> {
    const { clock, findData } = this.#options;
    const { files, onProgress, signal } = options;
    const found = await digestFile(files.disk, { clock, findData, onProgress, signal });
    if (found.digest === image.digest) return undefined;
    const expected = await readChunks(files);
    const isList = expected.length === chunkCount(image.sizeBytes) * CHUNK_DIGEST_BYTES;
    if (!isList || (await rootDigest(clock, image.sizeBytes, expected)) !== image.digest)
      return `its content is that of ${found.digest}, and the list that would say where it differs is damaged too`;
    return describePlaces(found, expected);
  }

  async #view({ image, tenant, identifier, sinceMs }: Instance): Promise<ImageView> {
    const { digest, sizeBytes, files } = image;
    const { tenants } = await this.#marks.useOf(files, digest);
    const problem = await problemOf(files);
    return { identifier, digest, sizeBytes, tenant, sinceMs, isUsed: tenants.has(tenant), problem };
  }
}

function damaged(name: string, problem: string): DiskError {
  return new DiskError(
    "damaged",
    `image ${name} is damaged: ${problem}; import it again from its source, or bring it with ramet image pull, which puts it right`,
  );
}

async function problemOf(files: ImageFiles): Promise<string | undefined> {
  return (await readRecord(files.damage, damageRecord))?.problem;
}

/** The chunks whose digests differ, as ranges of bytes. */
function describePlaces(found: Content, expected: Uint8Array): string {
  const places: { first: number; last: number }[] = [];
  for (let index = 0; index < chunkCount(found.sizeBytes); index += 1) {
    const at = index * CHUNK_DIGEST_BYTES;
    const digest = (chunks: Uint8Array) =>
      Buffer.from(chunks.buffer, chunks.byteOffset + at, CHUNK_DIGEST_BYTES);
    if (digest(found.chunks).equals(digest(expected))) continue;
    const before = places.at(-1);
    if (before?.last === index - 1) before.last = index;
    else places.push({ first: index, last: index });
  }
  const named = places.slice(0, MAX_NAMED_PLACES).map(({ first, last }) => {
    const end = Math.min((last + 1) * CHUNK_BYTES, found.sizeBytes);
    return `${first * CHUNK_BYTES} to ${end - 1}`;
  });
  const more = places.length - named.length;
  return `bytes ${named.join(", ")}${more > 0 ? ` and ${more} more ranges` : ""} are not what they were`;
}
