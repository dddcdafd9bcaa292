import { join } from "node:path";
import type { Clock, Holder } from "../../base/index.js";
import {
  CHUNK_DIGEST_BYTES,
  chunkCount,
  DiskError,
  FileSource,
  type BlockSource,
  type FillingSources,
  type FindData,
} from "../../disk/index.js";
import type { FrameLane } from "../../transfer/index.js";
import type { BlockPurpose } from "./block-supply.js";
import { RemoteBlocks } from "./remote-blocks.js";

/** The disks of a grant of an image, by their numbers: its bytes, and the digests of its chunks. */
const IMAGE_DISK = 0;
const CHUNKS_DISK = 1;

/** An image as it is asked for. */
export interface NamedImage {
  digest: string;
  sizeBytes: number;
}

/** An image that is read somewhere, until that fails or it is closed. */
export interface OpenedImage {
  readonly disk: FillingSources;
  /** The digests of its chunks, as they are said to be. */
  readonly chunks: BlockSource;
  /** Bytes that came over the network. */
  readonly receivedBytes: number;
  /** Why nothing comes at present; undefined while something does. */
  readonly problem: string | undefined;
  /** Calls `run` once when it gives nothing any more; not after `close`. */
  onOver(run: (why: DiskError) => void): void;
  /** May be called twice. */
  close(): void;
}

/** Somewhere an image can be had. */
export interface ImageOrigin {
  /** For people. */
  readonly name: string;
  /** Rejects with why it cannot be had there. */
  open(image: NamedImage): Promise<OpenedImage>;
}

/** Another host that has images. */
export interface ImageSourceHost {
  /** Asks for a grant of the image and its chunks. Rejects with the host's code. */
  openImage(digest: string): Promise<{ grant: number; token: string; holder: Holder }>;
  dial(
    purpose: BlockPurpose,
    epoch: number,
    grant: { grant: number; token: string; holder: Holder },
  ): Promise<FrameLane>;
  /** Gives a grant back; never rejects. */
  closeImage(grant: number): void;
}

/** Tells once that something is over: a read of it failed, or whoever gives it said so. */
class Ending {
  #over: DiskError | undefined;
  #run: ((why: DiskError) => void) | undefined;
  #closed = false;

  onOver(run: (why: DiskError) => void): void {
    this.#run = run;
    if (this.#over !== undefined && !this.#closed) run(this.#over);
  }

  end(why: DiskError): void {
    if (this.#over !== undefined || this.#closed) return;
    this.#over = why;
    this.#run?.(why);
  }

  /** @returns false when it was closed before. */
  close(): boolean {
    const wasClosed = this.#closed;
    this.#closed = true;
    return !wasClosed;
  }

  /** What is asked of a source that fails is asked of the next one. */
  guard(source: BlockSource): BlockSource {
    const guarded = async <T>(asked: Promise<T>): Promise<T> => {
      try {
        return await asked;
      } catch (error) {
        if (error instanceof DiskError) this.end(error);
        throw error;
      }
    };
    return {
      sizeBytes: source.sizeBytes,
      read: (offset, lengthBytes) => guarded(source.read(offset, lengthBytes)),
      extents: (offset, lengthBytes) => guarded(source.extents(offset, lengthBytes)),
    };
  }
}

/** Another host's images, over the block lanes. */
export function hostOrigin(source: ImageSourceHost, options: { name: string; clock: Clock }): ImageOrigin {
  const { name, clock } = options;
  return {
    name,
    open: async ({ digest, sizeBytes }) => {
      const granted = await source.openImage(digest);
      const sizes = [sizeBytes, chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES];
      const dial = (purpose: BlockPurpose, epoch: number) => source.dial(purpose, epoch, granted);
      const remote = new RemoteBlocks({ grant: granted.grant, sizes, dial, clock });
      const ending = new Ending();
      remote.onOver((why) => ending.end(why));
      const { urgent, bulk } = remote.disk(IMAGE_DISK);
      return {
        disk: { urgent: ending.guard(urgent), bulk: ending.guard(bulk) },
        chunks: remote.disk(CHUNKS_DISK).bulk,
        get receivedBytes() {
          return remote.receivedBytes;
        },
        get problem() {
          return remote.problem;
        },
        onOver: (run) => ending.onOver(run),
        close: () => {
          if (!ending.close()) return;
          remote.close();
          source.closeImage(granted.grant);
        },
      };
    },
  };
}

/** A directory of images on storage that is read from and copied, and not used in place. */
export function libraryOrigin(directory: string, options: { findData: FindData }): ImageOrigin {
  const { findData } = options;
  return {
    name: directory,
    open: async ({ digest, sizeBytes }) => {
      const disk = await FileSource.open(join(directory, digest, "disk.raw"), findData);
      let chunks: FileSource | undefined;
      try {
        chunks = await FileSource.open(join(directory, digest, "chunks"), findData);
        const isWhole =
          disk.sizeBytes === sizeBytes && chunks.sizeBytes === chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES;
        if (!isWhole) throw new DiskError("damaged", `the image ${digest} in ${directory} is not whole`);
      } catch (error) {
        await disk.close();
        await chunks?.close();
        throw error;
      }
      const files = [disk, chunks];
      const ending = new Ending();
      const source = ending.guard(disk);
      return {
        disk: { urgent: source, bulk: source },
        chunks,
        receivedBytes: 0,
        problem: undefined,
        onOver: (run) => ending.onOver(run),
        close: () => {
          if (ending.close()) for (const file of files) void file.close();
        },
      };
    },
  };
}
