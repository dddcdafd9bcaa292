import { randomUUID } from "node:crypto";
import { mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, sleep, type Clock, type Log } from "../base/index.js";
import { DiskError, isNoRoom } from "./errors.js";
import {
  asDiskError,
  ImageFiles,
  imageRecord,
  isMissing,
  isThere,
  namesIn,
  readRecord,
  REMOVING_BY,
} from "./image-files.js";
import { syncDirectory } from "./synced.js";
import { LEFTOVER_MS, RACE_ATTEMPTS, RACE_PAUSE_MS } from "./limits.js";
import { isDigest } from "./names.js";

const UNFINISHED = ".unfinished-";
const REMOVING = ".removing-";

/** An image that is there. */
export interface FoundImage {
  files: ImageFiles;
  digest: string;
  sizeBytes: number;
  createdAtMs: number;
  /** The directory of images it lies in. */
  directory: string;
}

/**
 * The directories images lie in, some of them shared with other hosts. What is being made or removed has a name that begins with a dot and holds the
 * host's id, so that each host cleans up after itself and leaves the others' work alone.
 *
 *     <digest>/                        an image
 *     .unfinished-<host>-<uuid>/       on its way in
 *     .removing-<host>-<uuid>/         on its way out
 */
export class ImageDirectories {
  readonly paths: readonly string[];
  readonly #hostId: string;
  readonly #clock: Clock;
  readonly #log: Log;
  /** What this agent is making: never taken for what a former one left. */
  readonly #making = new Set<string>();

  constructor(options: { paths: readonly string[]; hostId: string; clock: Clock; log: Log }) {
    this.paths = options.paths;
    this.#hostId = options.hostId;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Removes what this host left when it last went down; a directory that is not there (not mounted) is left out. */
  async clean(): Promise<void> {
    for (const path of this.paths) {
      await this.#attempt(path, undefined, async () => {
        const names = await namesIn(path);
        if (names.length === 0) await this.#warnOfMissing(path);
        for (const name of names) {
          if (this.#making.has(name)) continue;
          if (name.startsWith(`${UNFINISHED}${this.#hostId}-`)) await this.#remove(join(path, name));
          if (name.startsWith(`${REMOVING}${this.#hostId}-`)) await this.#goOnRemoving(join(path, name));
          if (isDigest(name)) await this.leave(new ImageFiles(join(path, name)));
        }
      });
    }
  }

  /** Removes what other hosts left and have not touched for long: they may never come back. */
  async cleanAfterOthers(): Promise<void> {
    for (const path of this.paths) {
      await this.#attempt(path, undefined, async () => {
        for (const name of await namesIn(path)) {
          if (!name.startsWith(UNFINISHED) && !name.startsWith(REMOVING)) continue;
          const leftover = join(path, name);
          if (!(await this.#isOld(leftover))) continue;
          if (name.startsWith(UNFINISHED)) await this.#remove(leftover);
          else await this.#goOnRemoving(leftover);
        }
      });
    }
  }

  /** Makes a directory for an image to come, closed to everybody else. @throws DiskError `bad-image` when no directory of images is there. */
  async makeUnfinished(): Promise<ImageFiles> {
    for (const path of this.paths) {
      const name = `${UNFINISHED}${this.#hostId}-${randomUUID()}`;
      const directory = join(path, name);
      this.#making.add(name);
      try {
        await mkdir(directory, { mode: 0o700 });
        return new ImageFiles(directory);
      } catch (error) {
        if (!isMissing(error)) throw asDiskError(error, directory);
      }
    }
    throw new DiskError("no-room", `there is no directory to keep images in: is ${this.paths[0]} mounted?`);
  }

  /** The image of a digest, in the first directory that has it; undefined when none does. */
  async find(digest: string): Promise<FoundImage | undefined> {
    for (const path of this.paths) {
      const found = await this.#attempt(path, undefined, () => readImage(path, digest));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Every image, each once. */
  async all(): Promise<FoundImage[]> {
    const found = new Map<string, FoundImage>();
    for (const path of this.paths) {
      await this.#attempt(path, undefined, async () => {
        for (const name of await namesIn(path)) {
          if (!isDigest(name) || found.has(name)) continue;
          const image = await readImage(path, name);
          if (image !== undefined) found.set(name, image);
        }
      });
    }
    return [...found.values()];
  }

  /** One directory that cannot be read, such as of a server that does not answer, is no reason to do without the others. */
  async #attempt<T>(path: string, otherwise: T, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#log.error({ path, problem: messageOf(error) }, "a directory of images cannot be read");
      return otherwise;
    }
  }

  /**
   * Lets others know that this host may be about to set an image aside: who begins to use it waits until it is said whether. Where the file system has no room for that,
   * it is done without: removing makes room. @throws ENOENT when the image is not there.
   */
  async intend(files: ImageFiles): Promise<void> {
    try {
      await writeFile(files.removing(this.#hostId), "", { mode: 0o600 });
    } catch (error) {
      if (!isNoRoom(error)) throw error;
    }
  }

  /** It is not set aside, or is back. */
  async leave(files: ImageFiles): Promise<void> {
    await rm(files.removing(this.#hostId), { force: true });
  }

  /** Waits until no host is about to set an image aside, but not for one that went down meanwhile. @returns whether the image is there then. */
  async whenLeft(files: ImageFiles): Promise<boolean> {
    let names: string[] = [];
    for (let attempt = 0; attempt < RACE_ATTEMPTS; attempt += 1) {
      if (attempt > 0) await sleep(this.#clock, RACE_PAUSE_MS);
      names = await namesIn(files.directory);
      if (names.length > 0 && !names.some((name) => name.startsWith(REMOVING_BY))) break;
    }
    return names.length > 0;
  }

  /** Takes an image out of everybody's sight. @throws ENOENT when it is not there. */
  async setAside(image: FoundImage): Promise<ImageFiles> {
    const name = `${REMOVING}${this.#hostId}-${randomUUID()}`;
    const aside = join(image.directory, name);
    this.#making.add(name);
    await rename(image.files.directory, aside);
    return new ImageFiles(aside);
  }

  /** Puts an image back that was set aside. When there is another one by now, this one is of no use. */
  async putBack(image: FoundImage, aside: ImageFiles): Promise<void> {
    try {
      await rename(aside.directory, image.files.directory);
      await syncDirectory(image.directory);
    } catch (error) {
      if (!isThere(error)) throw error;
      await this.#remove(aside.directory);
    }
  }

  /** The record goes first: what has none is not put back when a crash comes between. */
  async removeAside(aside: ImageFiles): Promise<void> {
    await rm(aside.record, { force: true });
    await syncDirectory(aside.directory);
    await this.#remove(aside.directory);
  }

  /** A crash came between setting an image aside and removing it, or putting it back: others may use it. */
  async #goOnRemoving(directory: string): Promise<void> {
    const aside = new ImageFiles(directory);
    const record = await readRecord(aside.record, imageRecord);
    if (record === undefined) return this.#remove(directory);
    const path = join(directory, "..");
    const files = new ImageFiles(join(path, record.digest));
    await this.putBack({ ...record, files, directory: path }, aside);
  }

  async #remove(directory: string): Promise<void> {
    try {
      await rm(directory, { recursive: true, force: true });
    } catch (error) {
      this.#log.warn({ directory, problem: messageOf(error) }, "what is left of an image cannot be removed");
    }
  }

  async #isOld(directory: string): Promise<boolean> {
    try {
      const times = [directory, ...(await namesIn(directory)).map((name) => join(directory, name))];
      const changed = await Promise.all(times.map(async (path) => (await stat(path)).mtimeMs));
      return Math.max(...changed) + LEFTOVER_MS < this.#clock.wallMs();
    } catch (error) {
      if (isMissing(error)) return false;
      throw asDiskError(error, directory);
    }
  }

  async #warnOfMissing(path: string): Promise<void> {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) return;
    this.#log.warn({ path }, "a directory of images is not there; its images are not seen until it is");
  }
}

/** An image by its record; one whose record is not whole, or another's, is none. */
async function readImage(directory: string, digest: string): Promise<FoundImage | undefined> {
  const files = new ImageFiles(join(directory, digest));
  const record = await readRecord(files.record, imageRecord);
  if (record === undefined || record.digest !== digest) return undefined;
  const { sizeBytes, createdAtMs } = record;
  return { files, digest, sizeBytes, createdAtMs, directory };
}
