import { rm } from "node:fs/promises";
import { join } from "node:path";
import { CodedError, type Clock } from "../base/index.js";
import type { DiskError } from "./errors.js";
import { FillingDisk, type FillingDiskOptions } from "./filling-disk.js";
import { FILES_BESIDES_CONTENT, FillingNotes } from "./filling-notes.js";
import type { FindData } from "./holes.js";
import type { HeldImage, UnfinishedImage } from "./images.js";

/** An image that is to come, as its digest says: `chunks` were found to come to it. */
export interface WantedImage {
  digest: string;
  sizeBytes: number;
  chunks: Uint8Array;
}

export interface FillingImageOptions {
  /** Of its own, on the file system of the images; an earlier agent may have left there what it had. */
  directory: string;
  image: WantedImage;
  /** The tenant it is brought for. */
  tenant: string;
  images: { adopt(directory: string): UnfinishedImage };
  clock: Clock;
  findData: FindData;
  /** As that of the disk. */
  onDamage?: (why: DiskError) => boolean;
}

/** An image on its way from another host, which becomes one of this host's when all of it is here. Guests may read it meanwhile, and go on doing so. */
export class FillingImage {
  readonly disk: FillingDisk;
  /** The image, held, once it is one. Rejects when it never will be, with DiskError `damaged` or `cancelled`, or what the file system says. */
  readonly image: Promise<HeldImage>;
  readonly #options: FillingImageOptions;

  private constructor(disk: FillingDisk, options: FillingImageOptions) {
    this.disk = disk;
    this.#options = options;
    this.image = this.#publish();
    // Whoever asks later is told; nobody has to.
    this.image.catch(() => {});
  }

  /** Goes on with what there is of an image, or begins it. It is filled once a source is attached to its disk. */
  static async open(options: FillingImageOptions): Promise<FillingImage> {
    const { directory, image } = options;
    const found = await openIfSound(directory, options);
    if (found?.sizeBytes === image.sizeBytes) return new FillingImage(found, options);
    await found?.close();
    await FillingNotes.create(directory, image);
    const disk = await FillingDisk.open(directory, options);
    if (disk === undefined) throw new Error("a disk that was just begun is there");
    return new FillingImage(disk, options);
  }

  /** Stops. What is not whole stays, to be gone on with; nothing may read it any more. */
  async close(): Promise<void> {
    await this.disk.close();
  }

  async #publish(): Promise<HeldImage> {
    const { directory, image, images, tenant } = this.#options;
    try {
      await this.disk.whole;
    } catch (error) {
      // Nothing of it is used again.
      if (error instanceof CodedError && error.code === "damaged")
        await rm(directory, { recursive: true, force: true });
      throw error;
    }
    for (const name of FILES_BESIDES_CONTENT) await rm(join(directory, name), { force: true });
    return images.adopt(directory).publish(image, tenant);
  }
}

/** What makes no sense is begun anew. */
async function openIfSound(directory: string, options: FillingDiskOptions): Promise<FillingDisk | undefined> {
  try {
    return await FillingDisk.open(directory, options);
  } catch (error) {
    if (error instanceof CodedError && error.code === "damaged") return undefined;
    throw error;
  }
}
