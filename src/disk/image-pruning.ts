import type { Clock, Log } from "../base/index.js";
import type { FoundImage, ImageDirectories } from "./image-directories.js";
import { isMissing } from "./image-files.js";
import type { ImageInstances } from "./image-instances.js";
import type { StoredImage } from "./images.js";
import type { UseMarks } from "./use-marks.js";

export interface PruneOptions {
  /** Images that were used later than so long ago stay; so do those that came later. */
  unusedForMs: number;
  /** Images that some tenant has stay, too. */
  keepOwned: boolean;
  /** Only says which would be removed. */
  dryRun: boolean;
}

/**
 * The only thing that removes images' bytes. That it may come to that is said first, and then the marks are looked at: a host that left its mark earlier keeps the image where
 * it is, and one that leaves its mark later finds what was said, and waits. Then the image is set aside, where no host finds it any more, and the marks are looked at again: for one
 * that came meanwhile the image is put back; one that comes later finds nothing.
 */
export class ImagePruning {
  readonly #directories: ImageDirectories;
  readonly #instances: ImageInstances;
  readonly #marks: UseMarks;
  readonly #clock: Clock;
  readonly #log: Log;
  /** What is being removed by this host, and when that is over. */
  readonly #removing = new Map<string, Promise<boolean>>();

  constructor(options: {
    directories: ImageDirectories;
    instances: ImageInstances;
    marks: UseMarks;
    clock: Clock;
    log: Log;
  }) {
    this.#directories = options.directories;
    this.#instances = options.instances;
    this.#marks = options.marks;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Waits for a removal that has begun; it may be put back. */
  async whenDone(digest: string): Promise<void> {
    await this.#removing.get(digest)?.catch(() => {});
  }

  async prune(candidates: readonly StoredImage[], options: PruneOptions): Promise<StoredImage[]> {
    const removed: StoredImage[] = [];
    for (const image of candidates) {
      if (!this.#isDue(image, options)) continue;
      if (options.dryRun || (await this.#remove(image.digest, options))) removed.push(image);
    }
    return removed;
  }

  #isDue(image: StoredImage, options: PruneOptions): boolean {
    if (image.usedBy.length > 0 || image.otherHosts.length > 0) return false;
    if (options.keepOwned && image.owners.length > 0) return false;
    return this.#isOld(image.lastUsedMs, options);
  }

  #isOld(lastUsedMs: number, { unusedForMs }: PruneOptions): boolean {
    return lastUsedMs + unusedForMs <= this.#clock.wallMs();
  }

  /** Nothing is waited for between the look at what this host uses and the note that it is being removed. */
  async #remove(digest: string, options: PruneOptions): Promise<boolean> {
    if (this.#marks.has(digest) || this.#removing.has(digest)) return false;
    const removing = this.#removeUnlessUsed(digest, options);
    this.#removing.set(digest, removing);
    try {
      return await removing;
    } finally {
      this.#removing.delete(digest);
    }
  }

  async #removeUnlessUsed(digest: string, options: PruneOptions): Promise<boolean> {
    const image = await this.#directories.find(digest);
    if (image === undefined) return false;
    let aside;
    try {
      await this.#directories.intend(image.files);
      if (!(await this.#isUnused(image, options))) {
        await this.#directories.leave(image.files);
        return false;
      }
      aside = await this.#directories.setAside(image);
    } catch (error) {
      // Another host was first.
      if (isMissing(error)) return false;
      await this.#directories.leave(image.files);
      throw error;
    }
    // It may have been used, or imported again, since it was looked at.
    if (!(await this.#isUnused({ ...image, files: aside }, options))) {
      await this.#directories.putBack(image, aside);
      await this.#directories.leave(image.files);
      return false;
    }
    this.#marks.forget(digest);
    await this.#directories.removeAside(aside);
    this.#log.info({ digest, directory: image.directory }, "an image nobody used was removed");
    return true;
  }

  async #isUnused(image: FoundImage, options: PruneOptions): Promise<boolean> {
    const { otherHosts, tenants, lastMs } = await this.#marks.useOf(image.files, image.digest);
    const owners = options.keepOwned ? await this.#instances.ownersOf(image) : [];
    if (otherHosts.length + tenants.size + owners.length > 0) return false;
    return this.#isOld(Math.max(lastMs, image.createdAtMs), options);
  }
}
