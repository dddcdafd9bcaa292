import { join } from "node:path";
import { codeOf, messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import {
  DiskError,
  FillingImage,
  FillingNotes,
  rootDigest,
  type FillingState,
  type FindData,
  type HeldImage,
  type Images,
  type WantedImage,
} from "../../disk/index.js";
import type { ImageOrigin, NamedImage, OpenedImage } from "./image-origins.js";
import { WrongOrigins } from "./wrong-origins.js";

/** Pauses before a source that was lost is asked for another grant: they double. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

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
  /** Where it comes from, or came from last; empty when that is yet to be found. */
  from: string;
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
  /** What had come of images, and is being removed. */
  readonly #clearing = new Map<string, Promise<unknown>>();

  constructor(options: ImagePullsOptions) {
    this.#options = options;
  }

  /**
   * Begins to bring an image, or goes on with it. What is here is read, and what is not asked for, by its `disk`.
   * @throws DiskError `damaged` when the source's list of chunks does not come to the digest, `source-lost`, and what the source refuses with.
   */
  async begin(image: NamedImage & { tenant: string }, origins: readonly ImageOrigin[]): Promise<ImagePull> {
    const { digest } = image;
    for (let over = this.#clearing.get(digest); over !== undefined; over = this.#clearing.get(digest))
      await over.catch(() => {});
    const begun = this.#pulls.get(digest);
    if (begun !== undefined) {
      const pull = await begun;
      const isNew = ({ name }: ImageOrigin): boolean => origins.every((origin) => origin.name !== name);
      pull.origins = [...origins, ...pull.origins.filter(isNew)];
      return pull;
    }
    const beginning = ImagePull.begin(image, origins, this.#options);
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

  /** Does something with what has come of an image, unless that is on its way; whoever wants to bring it waits. Settles as `work` does; false when it is on its way. */
  async unlessPulled(digest: string, work: () => Promise<boolean>): Promise<boolean> {
    if (this.#pulls.has(digest) || this.#clearing.has(digest)) return false;
    const clearing = work();
    this.#clearing.set(digest, clearing);
    try {
      return await clearing;
    } finally {
      this.#clearing.delete(digest);
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
  /** Where it may be had, in the order in which that is tried. */
  origins: readonly ImageOrigin[];
  readonly #filling: FillingImage;
  readonly #wanted: WantedImage;
  readonly #options: ImagePullsOptions;
  readonly #wrong: WrongOrigins;
  #opened: OpenedImage | undefined;
  #from = "";
  #endedBytes = 0;
  #waiting: string | undefined;
  /** When a source was lost last. */
  #lostUs: number | undefined;
  #isHere = false;
  #readers = 0;
  #closed = false;

  private constructor(
    parts: { filling: FillingImage; wanted: WantedImage; origins: readonly ImageOrigin[] },
    options: ImagePullsOptions,
  ) {
    this.#filling = parts.filling;
    this.#wanted = parts.wanted;
    this.origins = parts.origins;
    this.#options = options;
    this.#wrong = new WrongOrigins(options.clock);
    void this.#finish();
  }

  /** @throws what the last of the origins refuses with when none gives it, DiskError `damaged`. */
  static async begin(
    image: NamedImage & { tenant: string },
    origins: readonly ImageOrigin[],
    options: ImagePullsOptions,
  ): Promise<ImagePull> {
    const left = await ImagePull.#takeUp(image, options);
    if (left !== undefined) {
      left.origins = origins;
      void left.#seek("it is gone on with", 0);
      return left;
    }
    let refusal: unknown = new DiskError("source-lost", `nobody is known to have the image ${image.digest}`);
    for (const origin of origins) {
      try {
        const opened = await origin.open(image);
        try {
          const chunks = await readChunks(opened, image, options.clock);
          const pull = await ImagePull.#fill({ ...image, chunks }, { image, origins }, options);
          pull.#use(origin, opened);
          return pull;
        } catch (error) {
          opened.close();
          throw error;
        }
      } catch (error) {
        refusal = error;
      }
    }
    throw refusal;
  }

  /** Goes on with what an earlier agent has left. Undefined where that does not know what the image must be. */
  static async #takeUp(
    image: NamedImage & { tenant: string },
    options: ImagePullsOptions,
  ): Promise<ImagePull | undefined> {
    const chunks = await leftChunks(directoryOf(image, options), image, options.clock);
    if (chunks === undefined) return undefined;
    return ImagePull.#fill({ ...image, chunks }, { image, origins: [] }, options);
  }

  static async #fill(
    { digest, sizeBytes, chunks }: WantedImage,
    parts: { image: { tenant: string } & NamedImage; origins: readonly ImageOrigin[] },
    options: ImagePullsOptions,
  ): Promise<ImagePull> {
    const wanted = { digest, sizeBytes, chunks };
    const { image, origins } = parts;
    const directory = directoryOf(image, options);
    const made: { pull?: ImagePull } = {};
    const onDamage = (why: DiskError): boolean => made.pull?.goesOnAfter(why) ?? false;
    const filling = await FillingImage.open({
      ...options,
      directory,
      image: wanted,
      tenant: image.tenant,
      onDamage,
    });
    made.pull = new ImagePull({ filling, wanted, origins }, options);
    return made.pull;
  }

  /** The image, held for the tenant, when all of it is here. */
  get image(): Promise<HeldImage> {
    return this.#filling.image;
  }

  /** The file in which it comes, which becomes the image's. */
  get file(): string {
    return join(directoryOf(this.#wanted, this.#options), "disk.raw");
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
    const message = this.#waiting ?? messageIn(state) ?? this.#opened?.problem;
    return {
      phase: this.#isHere ? "complete" : phaseOf(state, this.#waiting),
      digest,
      sizeBytes,
      from: this.#from,
      hereBytes: progress.hereBytes,
      wireBytes: this.#endedBytes + (this.#opened?.receivedBytes ?? 0),
      ...(message === undefined ? {} : { message }),
    };
  }

  /** Whether a chunk that came wrong is asked of somebody else: where a guest runs on the image, that waits for a right one. */
  goesOnAfter(why: DiskError): boolean {
    if (this.#readers === 0 || this.#closed) return false;
    // Of what was on its way together, each may be wrong: its origin is left already.
    if (this.#opened === undefined) return true;
    const { log } = this.#options;
    const from = this.#from;
    log.error({ digest: this.#wanted.digest, from, problem: why.message }, "a part of an image was refused");
    this.#onLost(new DiskError("damaged", this.#wrong.note(from, why.message)));
    return true;
  }

  /** Stops. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#leave();
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
    this.#leave();
    this.#closeUnread();
  }

  /** When it is over and nobody reads it, its file is not needed any more. */
  #closeUnread(): void {
    if (this.#closed && this.#readers === 0) void this.#filling.close();
  }

  #use(origin: ImageOrigin, opened: OpenedImage): void {
    this.#from = origin.name;
    this.#opened = opened;
    this.#waiting = undefined;
    this.#filling.disk.attach(opened.disk);
    opened.onOver((why) => {
      if (this.#opened === opened) this.#onLost(why);
    });
  }

  #leave(): void {
    const opened = this.#opened;
    this.#opened = undefined;
    this.#endedBytes += opened?.receivedBytes ?? 0;
    opened?.close();
  }

  #onLost(why: DiskError): void {
    this.#filling.disk.detach();
    this.#leave();
    const nowUs = this.#options.clock.nowUs();
    const isAgain = this.#lostUs !== undefined && nowUs - this.#lostUs < 1000 * LONGEST_PAUSE_MS;
    this.#lostUs = nowUs;
    // Those that give something, and then fail, are not asked in turn without a pause.
    void this.#seek(why.message, isAgain ? LONGEST_PAUSE_MS : this.origins.length > 1 ? 0 : FIRST_PAUSE_MS);
  }

  /** Asks for it wherever it may be, the next one after that which was lost first, until somebody gives it. */
  async #seek(why: string, firstPauseMs: number): Promise<void> {
    const { clock, log } = this.#options;
    this.#waiting = why;
    log.info({ digest: this.#wanted.digest, problem: why }, "an image is asked for anew");
    const lost = this.origins.findIndex(({ name }) => name === this.#from);
    for (let pauseMs = firstPauseMs; ; pauseMs = longer(pauseMs)) {
      await sleep(clock, pauseMs);
      for (let turn = 1; turn <= this.origins.length; turn += 1) {
        const origin = this.origins[(lost + turn) % this.origins.length] as ImageOrigin;
        if (this.#closed) return;
        if (this.#wrong.isBanned(origin.name)) continue;
        try {
          const opened = await origin.open(this.#wanted);
          if (this.#closed) return opened.close();
          return this.#use(origin, opened);
        } catch (error) {
          this.#waiting = `${origin.name}: ${messageOf(error)} (${codeOf(error)})`;
        }
      }
      if (this.#closed) return;
    }
  }
}

function longer(pauseMs: number): number {
  return Math.min(Math.max(FIRST_PAUSE_MS, 2 * pauseMs), LONGEST_PAUSE_MS);
}

/** Where an image is kept that this host brings. */
export function directoryOf(
  { digest }: Pick<NamedImage, "digest">,
  { directory, hostId }: Pick<ImagePullsOptions, "directory" | "hostId">,
): string {
  return join(directory, `.filling-${hostId}-${digest}`);
}

/** The list of chunks, which must come to the digest: with it every chunk can be checked when it comes. */
async function readChunks(opened: OpenedImage, image: NamedImage, clock: Clock): Promise<Uint8Array> {
  const { chunks: source } = opened;
  const chunks = await source.read(0, source.sizeBytes);
  if (await isListOf(image, chunks, clock)) return chunks;
  throw new DiskError(
    "damaged",
    `what the other host calls the image ${image.digest} is not what its digest says`,
  );
}

/** The list that an earlier agent has left with what had come; undefined when it has left none that is the image's. */
async function leftChunks(
  directory: string,
  image: NamedImage,
  clock: Clock,
): Promise<Uint8Array | undefined> {
  try {
    const notes = await FillingNotes.open(directory);
    await notes?.close();
    if (notes?.sizeBytes !== image.sizeBytes || notes.chunks === undefined) return undefined;
    return (await isListOf(image, notes.chunks, clock)) ? notes.chunks : undefined;
  } catch (error) {
    if (error instanceof DiskError) return undefined;
    throw error;
  }
}

async function isListOf(
  { digest, sizeBytes }: NamedImage,
  chunks: Uint8Array,
  clock: Clock,
): Promise<boolean> {
  return (await rootDigest(clock, sizeBytes, chunks)) === digest;
}

function phaseOf(state: FillingState, waiting: string | undefined): PullProgress["phase"] {
  if (waiting !== undefined || state.phase === "stuck" || state.phase === "damaged") return "waiting";
  return state.phase === "full" ? "full" : "pulling";
}

function messageIn(state: FillingState): string | undefined {
  return "message" in state ? state.message : undefined;
}
