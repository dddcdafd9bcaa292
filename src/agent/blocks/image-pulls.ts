import { join } from "node:path";
import { codeOf, messageOf, sleep, type Clock, type Holder, type Log } from "../../base/index.js";
import {
  CHUNK_DIGEST_BYTES,
  chunkCount,
  DiskError,
  FillingImage,
  rootDigest,
  type FillingState,
  type FindData,
  type HeldImage,
  type Images,
  type WantedImage,
} from "../../disk/index.js";
import type { FrameLane } from "../../transfer/index.js";
import type { BlockPurpose } from "./block-supply.js";
import { RemoteBlocks } from "./remote-blocks.js";

/** Pauses before a source that was lost is asked for another grant: they double. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** The disks of a grant of an image, by their numbers: its bytes, and the digests of its chunks. */
export const IMAGE_DISK = 0;
export const CHUNKS_DISK = 1;

/** Another host that has the image. */
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

export interface ImagePullsOptions {
  images: Pick<Images, "has" | "hold" | "adopt">;
  /** Where images on their way are kept: on the file system of the images. */
  directory: string;
  /** Tells this host's images on their way from others', where the directory is shared. */
  hostId: string;
  findData: FindData;
  clock: Clock;
  log: Log;
}

/** How far an image is on its way. */
export interface PullProgress {
  /** `pulling`; `waiting` for its source, for the reason in the message; `full`: the file system; `complete`. */
  phase: "pulling" | "waiting" | "full" | "complete";
  digest: string;
  sizeBytes: number;
  /** What is here, holes with it. */
  hereBytes: number;
  /** Bytes that came over the lanes, as they were on the wire. */
  wireBytes: number;
  message?: string;
}

/** Images that come from other hosts, each once, whoever asks for it and how often. */
export class ImagePulls {
  readonly #options: ImagePullsOptions;
  readonly #pulls = new Map<string, Promise<ImagePull>>();

  constructor(options: ImagePullsOptions) {
    this.#options = options;
  }

  /**
   * Begins to bring an image, or goes on with it. What is here is read, and what is not asked for, by its `disk`.
   * @throws DiskError `damaged` when the source's list of chunks does not come to the digest, `source-lost`, and what the source refuses with.
   */
  async begin(
    image: { digest: string; sizeBytes: number; tenant: string },
    source: ImageSourceHost,
  ): Promise<ImagePull> {
    const { digest } = image;
    const begun = this.#pulls.get(digest);
    if (begun !== undefined) {
      const pull = await begun;
      pull.source = source;
      return pull;
    }
    const beginning = ImagePull.begin(image, source, this.#options);
    this.#pulls.set(digest, beginning);
    const forget = (): void => void (this.#pulls.get(digest) === beginning && this.#pulls.delete(digest));
    try {
      const pull = await beginning;
      void pull.image.then(forget, forget);
      return pull;
    } catch (error) {
      forget();
      throw error;
    }
  }

  /** Stops all; what is here stays, to be gone on with. */
  async close(): Promise<void> {
    for (const beginning of [...this.#pulls.values()]) {
      const pull = await beginning.catch(() => undefined);
      await pull?.close();
    }
  }
}

/** One image on its way. */
export class ImagePull {
  /** Where it comes from when the present source is lost. */
  source: ImageSourceHost;
  readonly #filling: FillingImage;
  readonly #wanted: WantedImage;
  readonly #options: ImagePullsOptions;
  #remote: RemoteBlocks;
  #grant: number;
  #endedBytes = 0;
  #waiting: string | undefined;
  #isHere = false;
  #readers = 0;
  #closed = false;

  private constructor(
    parts: {
      filling: FillingImage;
      wanted: WantedImage;
      source: ImageSourceHost;
      remote: RemoteBlocks;
      grant: number;
    },
    options: ImagePullsOptions,
  ) {
    this.#filling = parts.filling;
    this.#wanted = parts.wanted;
    this.source = parts.source;
    this.#remote = parts.remote;
    this.#grant = parts.grant;
    this.#options = options;
    this.#filling.disk.attach(this.#remote.disk(IMAGE_DISK));
    this.#remote.onOver((why) => void this.#onLost(why));
    void this.#finish();
  }

  static async begin(
    image: { digest: string; sizeBytes: number; tenant: string },
    source: ImageSourceHost,
    options: ImagePullsOptions,
  ): Promise<ImagePull> {
    const { grant, remote } = await openRemote(image, source, options);
    try {
      const chunks = await readChunks(remote, image, options.clock);
      const wanted = { digest: image.digest, sizeBytes: image.sizeBytes, chunks };
      const directory = join(options.directory, `.filling-${options.hostId}-${image.digest}`);
      const filling = await FillingImage.open({ ...options, directory, image: wanted, tenant: image.tenant });
      return new ImagePull({ filling, wanted, source, remote, grant }, options);
    } catch (error) {
      remote.close();
      source.closeImage(grant);
      throw error;
    }
  }

  /** The image, held for the tenant, when all of it is here. */
  get image(): Promise<HeldImage> {
    return this.#filling.image;
  }

  /** Keeps its `disk` readable until the returned function is called, also when all of it is here by then. */
  read(): () => void {
    let isReading = true;
    this.#readers += 1;
    return () => {
      if (!isReading) return;
      isReading = false;
      this.#readers -= 1;
      this.#closeUnread();
    };
  }

  /** Its bytes, whether they are here or not; for those who `read`. */
  get disk(): FillingImage["disk"] {
    return this.#filling.disk;
  }

  get progress(): PullProgress {
    const { digest, sizeBytes } = this.#wanted;
    const { state, progress } = this.#filling.disk;
    const message = this.#waiting ?? messageIn(state);
    return {
      phase: this.#isHere ? "complete" : phaseOf(state, this.#waiting),
      digest,
      sizeBytes,
      hereBytes: progress.hereBytes,
      wireBytes: this.#endedBytes + (this.#waiting === undefined ? this.#remote.receivedBytes : 0),
      ...(message === undefined ? {} : { message }),
    };
  }

  /** Stops. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#remote.close();
    await this.#filling.close();
  }

  /** The lanes are needed until the image is whole; its disk for as long as somebody reads it. */
  async #finish(): Promise<void> {
    try {
      await this.#filling.image;
      this.#isHere = true;
    } catch (error) {
      const { log } = this.#options;
      if (!this.#closed)
        log.warn({ digest: this.#wanted.digest, problem: messageOf(error) }, "an image did not come");
    }
    this.#closed = true;
    this.#remote.close();
    this.source.closeImage(this.#grant);
    this.#closeUnread();
  }

  /** When it is over and nobody reads it, its file is not needed any more. */
  #closeUnread(): void {
    if (this.#closed && this.#readers === 0) void this.#filling.close();
  }

  /** Asks for another grant, of whoever is the source by then, until there is one. */
  async #onLost(why: DiskError): Promise<void> {
    const { clock, log } = this.#options;
    this.#filling.disk.detach();
    this.#endedBytes += this.#remote.receivedBytes;
    this.#waiting = why.message;
    log.info(
      { digest: this.#wanted.digest, problem: why.message },
      "the source of an image was lost; it is asked again",
    );
    for (let pauseMs = FIRST_PAUSE_MS; !this.#closed; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      await sleep(clock, pauseMs);
      if (this.#closed) return;
      try {
        const { grant, remote } = await openRemote(this.#wanted, this.source, this.#options);
        if (this.#closed) return remote.close();
        this.#remote = remote;
        this.#grant = grant;
        this.#waiting = undefined;
        this.#filling.disk.attach(remote.disk(IMAGE_DISK));
        return remote.onOver((again) => void this.#onLost(again));
      } catch (error) {
        this.#waiting = `${messageOf(error)} (${codeOf(error)})`;
      }
    }
  }
}

async function openRemote(
  { digest, sizeBytes }: { digest: string; sizeBytes: number },
  source: ImageSourceHost,
  { clock }: ImagePullsOptions,
): Promise<{ grant: number; remote: RemoteBlocks }> {
  const granted = await source.openImage(digest);
  const sizes = [sizeBytes, chunkCount(sizeBytes) * CHUNK_DIGEST_BYTES];
  const dial = (purpose: BlockPurpose, epoch: number) => source.dial(purpose, epoch, granted);
  return { grant: granted.grant, remote: new RemoteBlocks({ grant: granted.grant, sizes, dial, clock }) };
}

/** The list of chunks, which must come to the digest: with it every chunk can be checked when it comes. */
async function readChunks(
  remote: RemoteBlocks,
  image: { digest: string; sizeBytes: number },
  clock: Clock,
): Promise<Uint8Array> {
  const { bulk } = remote.disk(CHUNKS_DISK);
  const chunks = await bulk.read(0, bulk.sizeBytes);
  if ((await rootDigest(clock, image.sizeBytes, chunks)) === image.digest) return chunks;
  throw new DiskError(
    "damaged",
    `what the other host calls the image ${image.digest} is not what its digest says`,
  );
}

function phaseOf(state: FillingState, waiting: string | undefined): PullProgress["phase"] {
  if (waiting !== undefined || state.phase === "stuck" || state.phase === "damaged") return "waiting";
  return state.phase === "full" ? "full" : "pulling";
}

function messageIn(state: FillingState): string | undefined {
  return "message" in state ? state.message : undefined;
}
