import type { Clock, Log } from "../base/index.js";
import { DiskError } from "./errors.js";
import { ImageDirectories } from "./image-directories.js";
import { ImageInstances } from "./image-instances.js";

/** An image in a library. */
export interface LibraryImage {
  digest: string;
  sizeBytes: number;
  identifier: string | undefined;
  directory: string;
}

/** Directories of images that are only copied from: nothing in them is used in place, written or removed. */
export class ImageLibraries {
  readonly #instances: ImageInstances;
  readonly #directories: ImageDirectories;

  constructor(options: { directories: readonly string[]; hostId: string; clock: Clock; log: Log }) {
    const { directories: paths, hostId, clock, log } = options;
    this.#directories = new ImageDirectories({ paths, hostId, clock, log });
    this.#instances = new ImageInstances(this.#directories);
  }

  /** What a reference means to a tenant there; undefined when it means nothing. @throws DiskError `ambiguous`, `bad-name`. */
  async find(reference: string, tenant: string): Promise<LibraryImage | undefined> {
    try {
      const { image, identifier } = await this.#instances.find(reference, tenant);
      const { digest, sizeBytes, directory } = image;
      return { digest, sizeBytes, identifier, directory };
    } catch (error) {
      if (error instanceof DiskError && error.code === "no-such-image") return undefined;
      throw error;
    }
  }
}
