import { chmod, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { assert, codeOf, DEFAULT_TENANT, messageOf, sleep, type Clock, type Log } from "../base/index.js";
import type { Content } from "./content-digest.js";
import { DiskError } from "./errors.js";
import type { FoundImage, ImageDirectories } from "./image-directories.js";
import { asDiskError, damageRecord, ImageFiles, isMissing, isThere, readRecord } from "./image-files.js";
import { syncDirectory, writeSynced } from "./synced.js";
import { writeInstance, type ImageInstances, type Instance } from "./image-instances.js";
import type { HeldImage, UnfinishedImage } from "./images.js";
import { RACE_ATTEMPTS, RACE_PAUSE_MS } from "./limits.js";
import type { UseMarks } from "./use-marks.js";

/** Holds what a tenant is being given; no tenant is called so. */
const GIVING = "#give";

/** Whom an image is for. */
interface As {
  tenant: string;
  identifier: string | undefined;
  sinceMs: number;
}

/**
 * The last step of every image's way in: what has been made in a directory of its own becomes the image, or is dropped because another import, of this
 * host or of one that shares the directory, was first.
 */
export class ImagePublishing {
  readonly #directories: ImageDirectories;
  readonly #instances: ImageInstances;
  readonly #marks: UseMarks;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #hold: (digest: string, tenant: string) => Promise<HeldImage>;
  /** What is being removed. */
  readonly #dropping = new Set<Promise<void>>();
  /** Names are given one after the other, so that on one host a name is never given twice. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: {
    directories: ImageDirectories;
    instances: ImageInstances;
    marks: UseMarks;
    clock: Clock;
    log: Log;
    hold: (digest: string, tenant: string) => Promise<HeldImage>;
  }) {
    this.#directories = options.directories;
    this.#instances = options.instances;
    this.#marks = options.marks;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#hold = options.hold;
  }

  /** Makes a directory an image that a tenant has. @throws DiskError `name-taken`. */
  async give(files: ImageFiles, content: Content, as: As): Promise<Instance> {
    await this.#finish(files, content);
    await writeInstance(files, as);
    return this.#inTurn(() => this.#give(content.digest, as, () => this.#place(files, content)));
  }

  /** Lets a tenant have an image that is there. @throws DiskError `no-such-image`, `name-taken`. */
  async assign(digest: string, as: As): Promise<Instance> {
    return this.#inTurn(() =>
      this.#give(digest, as, async () => {
        const image = await this.#directories.find(digest);
        if (image !== undefined) return { image, isOurs: false };
        throw new DiskError("no-such-image", `there is no image ${digest.slice(0, 12)}… on this host`);
      }),
    );
  }

  /** A directory on its way to becoming an image that no tenant has, for a chain that needs it. */
  unfinished(files: ImageFiles): UnfinishedImage {
    let published = false;
    return {
      path: files.disk,
      publish: async (content, tenant = DEFAULT_TENANT) => {
        assert(!published, "an image is published once");
        published = true;
        try {
          await this.#finish(files, content);
          await mkdir(files.hosts, { recursive: true });
          await this.#marks.place(files, tenant);
          return await this.#placeAndHold(files, content, tenant);
        } finally {
          this.drop(files);
        }
      },
      drop: async () => {
        if (published) return;
        published = true;
        this.drop(files);
        await Promise.resolve();
      },
    };
  }

  /**
   * Removes what has not become an image, if there is anything. Nobody waits for that: how long it takes would say whether the image had been there before.
   */
  drop(files: ImageFiles): void {
    const dropping = rm(files.directory, { recursive: true, force: true }).catch((error: unknown) =>
      this.#log.warn(
        { directory: files.directory, problem: messageOf(error) },
        "an unfinished image remains",
      ),
    );
    this.#dropping.add(dropping);
    void dropping.finally(() => this.#dropping.delete(dropping));
  }

  async close(): Promise<void> {
    await this.#turn;
    await Promise.all(this.#dropping);
  }

  /** Everything is on the disk, read-only, before anybody else sees it. */
  async #finish(files: ImageFiles, content: Content): Promise<void> {
    const { digest, sizeBytes, chunks } = content;
    try {
      await rm(`${files.disk}.qcow2`, { force: true });
      const disk = await open(files.disk, "r+");
      try {
        const { size } = await disk.stat();
        assert(size === sizeBytes, `an image of ${sizeBytes} bytes has ${size}`);
        await disk.sync();
      } finally {
        await disk.close();
      }
      await chmod(files.disk, 0o444);
      await writeSynced(files.chunks, chunks);
      const record = { version: 1, digest, sizeBytes, createdAtMs: this.#clock.wallMs() };
      await writeSynced(files.record, `${JSON.stringify(record)}\n`);
      await mkdir(files.tenants, { recursive: true });
      await mkdir(files.hosts, { recursive: true });
      await chmod(files.directory, 0o711);
      await syncDirectory(files.directory);
    } catch (error) {
      throw asDiskError(error, files.disk);
    }
  }

  #inTurn(give: () => Promise<Instance>): Promise<Instance> {
    const giving = this.#turn.then(give);
    this.#turn = giving.catch(() => {});
    return giving;
  }

  /** @param place finds the image, or makes it, in which case it says whom it is for. */
  async #give(
    digest: string,
    as: As,
    place: () => Promise<{ image: FoundImage; isOurs: boolean }>,
  ): Promise<Instance> {
    const { tenant, identifier } = as;
    for (let attempt = 0; attempt < RACE_ATTEMPTS; attempt += 1) {
      if (identifier !== undefined) await this.#instances.requireFree(identifier, tenant, digest);
      try {
        const { image, isOurs } = await place();
        // What was made here says already whom it is for; whoever sees it may remove it by now.
        const instance = isOurs ? { image, ...as } : await this.#add(image, as);
        if (await this.#instances.isAlone(instance)) return instance;
        // Perhaps the other host gives way, too, and both come again: not at the same time.
        await this.#instances.remove(instance);
        await sleep(this.#clock, Number.parseInt(digest.slice(2 * attempt, 2 * attempt + 2), 16));
      } catch (error) {
        // Another host removed the image between its being found and its being given; what was made here is there still.
        if (!isMissing(error)) throw asDiskError(error, `${this.#directories.paths[0]}/${digest}`);
        await sleep(this.#clock, RACE_PAUSE_MS);
      }
    }
    throw new DiskError("timeout", `the image ${digest} is removed or named by another host again and again`);
  }

  /** It counts as used now: who has just been given an image has it as long before it is pruned as one that is new here. */
  async #add(image: FoundImage, as: As): Promise<Instance> {
    const letGo = await this.#marks.take(image.files, image.digest, GIVING);
    try {
      return await this.#instances.add(image, as);
    } finally {
      letGo();
    }
  }

  /** Another host may remove the image that was there before it is held; what was made here is there still. */
  async #placeAndHold(files: ImageFiles, content: Content, tenant: string): Promise<HeldImage> {
    for (let attempt = 1; ; attempt += 1) {
      await this.#place(files, content);
      try {
        return await this.#hold(content.digest, tenant);
      } catch (error) {
        if (codeOf(error) !== "no-such-image" || attempt === RACE_ATTEMPTS) throw error;
      }
    }
  }

  /** Puts the directory where images are, unless the image is there; returns the one that is there then. */
  async #place(files: ImageFiles, content: Content): Promise<{ image: FoundImage; isOurs: boolean }> {
    const { digest, sizeBytes } = content;
    const directory = dirname(files.directory);
    for (let attempt = 0; attempt < RACE_ATTEMPTS; attempt += 1) {
      const there = await this.#directories.find(digest);
      if (there !== undefined && (await this.#isGood(there, files))) return { image: there, isOurs: false };
      const own = new ImageFiles(`${directory}/${digest}`);
      try {
        // It may have been given to a damaged image that has gone since.
        await stat(files.disk);
        await rename(files.directory, own.directory);
        await syncDirectory(directory);
        const image = { files: own, digest, sizeBytes, directory, createdAtMs: this.#clock.wallMs() };
        return { image, isOurs: true };
      } catch (error) {
        if (!isThere(error)) throw error;
      }
      await sleep(this.#clock, RACE_PAUSE_MS);
    }
    throw new DiskError(
      "bad-image",
      `${directory}/${digest} is in the way and is no image; look at it and remove it`,
    );
  }

  /** Whether an image that is there can be used; a damaged one is given the new bytes when they lie on the same file system. */
  async #isGood(there: FoundImage, files: ImageFiles): Promise<boolean> {
    if ((await readRecord(there.files.damage, damageRecord)) === undefined) return true;
    if (there.directory !== dirname(files.directory)) return false;
    await rename(files.disk, there.files.disk);
    await rename(files.chunks, there.files.chunks);
    await syncDirectory(there.files.directory);
    await rm(there.files.damage, { force: true });
    this.#log.info({ digest: there.digest }, "a damaged image was put right");
    return true;
  }
}
