import { link, rm } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, deferred, messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import type { ArrivalView } from "../../control/index.js";
import {
  DiskError,
  FileSource,
  NbdServer,
  type BlockExtent,
  type BlockSource,
  type FindData,
  type HeldImage,
  type ImageStore,
} from "../../disk/index.js";
import type { ImageOrigin } from "../blocks/image-origins.js";
import type { ImagePull, ImagePulls } from "../blocks/image-pulls.js";
import type { Arrived } from "../disks/localise.js";
import { instancesIn, type ArrivingRecord, type KnownOrigin } from "./arriving-record.js";

/** Pauses before an image that did not come is begun again: they double. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;

/** How often it is tried again to have emulators read what has arrived where it lies: they may not have been let run yet. */
const LOCALISE_RETRY_MS = 500;

/** What an agent does for an image on its way. */
export interface ArrivingImageHost {
  readonly images: Pick<ImageStore, "hasSound" | "hold" | "assign">;
  readonly pulls: Pick<ImagePulls, "begin">;
  /** Where the image will lie, and its file is linked meanwhile: on one file system. */
  readonly imagesDirectory: string;
  /** Where emulators find its socket. */
  readonly socketDirectory: string;
  readonly hostId: string;
  readonly findData: FindData;
  readonly clock: Clock;
  readonly log: Log;
  origins(record: ArrivingRecord): readonly ImageOrigin[];
  /** Has every guest read it where it lies. False when there is one that cannot yet. */
  localise(arrived: Arrived): Promise<boolean>;
  /** It has settled: its record goes. */
  settled(record: ArrivingRecord): Promise<void>;
}

/** How an image's file is called meanwhile, in a directory that hosts may share, and its socket in this host's own: with its key behind it. */
export function linkPrefix(hostId: string): string {
  return `.arriving-${hostId}-`;
}
export const SOCKET_PREFIX = ".arriving-";

/** Reads that wait until there is something to read. */
class LaterSource implements BlockSource {
  readonly sizeBytes: number;
  #content = deferred<BlockSource>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#content.promise.catch(() => {});
  }

  use(content: BlockSource): void {
    this.#content.resolve(content);
  }

  /** Reads wait again. */
  lose(): void {
    this.#content = deferred();
    this.#content.promise.catch(() => {});
  }

  close(): void {
    this.#content.reject(new DiskError("cancelled", "the image is not given any more"));
  }

  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    return (await this.#content.promise).read(offset, lengthBytes);
  }

  async extents(offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    return (await this.#content.promise).extents(offset, lengthBytes);
  }
}

/**
 * A base disk that guests run on while it comes:
 *
 *     coming ──all here, checked──▶ an image of this host's ──read by nobody over NBD──▶ settled
 *
 * Emulators read it on a socket. Beside that they are given its file, which they may read only when all of it is right: the link is the same file before and after.
 */
export class ArrivingImage {
  #record: ArrivingRecord;
  readonly #host: ArrivingImageHost;
  readonly #log: Log;
  readonly #source: LaterSource;
  #server: NbdServer | undefined;
  #pull: ImagePull | undefined;
  #stopReading: () => void = () => {};
  #file: FileSource | undefined;
  /** The agent's own hold, from when all of it is here until each tenant whose chains stand on it has one. */
  #held: HeldImage | undefined;
  readonly #tenants = new Map<string, { users: number; held?: HeldImage }>();
  #problem: string | undefined;
  #settled = false;
  #closed = false;

  private constructor(record: ArrivingRecord, host: ArrivingImageHost) {
    this.#record = record;
    this.#host = host;
    this.#log = host.log.child({ image: record.digest });
    this.#source = new LaterSource(record.sizeBytes);
  }

  /**
   * Begins to bring it.
   * @returns undefined when all of it came meanwhile.
   * @throws what the last of the origins refuses with; DiskError `bad-socket`.
   */
  static async begin(record: ArrivingRecord, host: ArrivingImageHost): Promise<ArrivingImage | undefined> {
    const image = new ArrivingImage(record, host);
    try {
      const pull = await host.pulls.begin(record, host.origins(record));
      image.#read(pull);
      try {
        await link(pull.file, image.linkPath);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
        await image.close();
        (await pull.image).letGo();
        return undefined;
      }
      await image.#serve();
      return image;
    } catch (error) {
      await image.close();
      await rm(image.linkPath, { force: true });
      throw error;
    }
  }

  /** Serves what an earlier agent has left: emulators wait for it. What they read is given once `run` was called. @throws DiskError `bad-socket`. */
  static async takeUp(record: ArrivingRecord, host: ArrivingImageHost): Promise<ArrivingImage> {
    const image = new ArrivingImage(record, host);
    await image.#serve();
    return image;
  }

  /** What is kept of it. */
  get record(): ArrivingRecord {
    return this.#record;
  }

  /** A guest of another tenant runs on it: that tenant has it, too, when all of it is here. Changes `record`, which is to be saved. */
  addTenant(tenant: string, identifier: string | undefined): void {
    if (instancesIn(this.#record).some((instance) => instance.tenant === tenant)) return;
    const instance = { tenant, ...(identifier === undefined ? {} : { identifier }) };
    this.#record = { ...this.#record, alsoFor: [...(this.#record.alsoFor ?? []), instance] };
  }

  /** Its file, whatever that is called at the moment. */
  get linkPath(): string {
    const { imagesDirectory, hostId } = this.#host;
    return join(imagesDirectory, `${linkPrefix(hostId)}${this.record.key}`);
  }

  /** Whether it is one of this host's images by now. */
  get isHere(): boolean {
    return this.#held !== undefined;
  }

  /** How far it is; undefined when all of it is here. */
  get arrival(): ArrivalView | undefined {
    if (this.isHere) return undefined;
    const { hereBytes = 0, wireBytes = 0, from, message } = this.#pull?.progress ?? {};
    const why =
      this.#problem ?? (this.#pull?.progress.phase === "full" ? "the file system is full" : message);
    return {
      host: from === undefined || from === "" ? nameOf(this.record.origins[0]) : from,
      hereBytes,
      fileBytes: this.record.sizeBytes,
      wireBytes,
      ...(why === undefined ? {} : { message: why.slice(0, 500) }),
    };
  }

  /** Has it stay, for a tenant's chain over it. What is told of where it is read changes with the time. Errors as those of `Images.hold`. */
  async hold(tenant: string): Promise<HeldImage> {
    let isHolding = true;
    const letGo = (): void => {
      if (isHolding) this.#leave(tenant);
      isHolding = false;
    };
    const entry = this.#tenants.get(tenant) ?? { users: 0 };
    this.#tenants.set(tenant, entry);
    entry.users += 1;
    try {
      if (this.isHere) await this.#mark(tenant);
    } catch (error) {
      letGo();
      throw error;
    }
    const path = (): string =>
      this.#held?.path ?? join(this.#host.imagesDirectory, this.record.digest, "disk.raw");
    const isOnItsWay = (): boolean => !this.#settled;
    const { socketPath, linkPath } = this;
    return {
      digest: this.record.digest,
      sizeBytes: this.record.sizeBytes,
      get path() {
        return path();
      },
      get arriving() {
        return isOnItsWay() ? { socket: socketPath, file: linkPath } : undefined;
      },
      letGo,
    };
  }

  /** Goes on until it has settled. Never rejects. */
  async run(): Promise<void> {
    for (let pauseMs = FIRST_PAUSE_MS; !this.#closed; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        this.#held = await this.#arrive();
        break;
      } catch (error) {
        if (this.#closed) return;
        this.#problem = `${messageOf(error)} (${codeOf(error)})`;
        this.#log.error(
          { problem: this.#problem },
          "an image that guests run on did not come; it is begun again",
        );
        this.#leavePull();
      }
      await sleep(this.#host.clock, pauseMs);
    }
    if (!this.#closed) await this.#settle();
  }

  /** Stops serving and bringing it; what has come stays, and emulators wait. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#source.close();
    await this.#server?.close();
    this.#stopReading();
    await this.#file?.close();
    this.#file = undefined;
  }

  get socketPath(): string {
    return join(this.#host.socketDirectory, `${SOCKET_PREFIX}${this.record.key}`);
  }

  #read(pull: ImagePull): void {
    this.#pull = pull;
    this.#stopReading = pull.read();
    this.#source.use(pull.disk);
  }

  #leavePull(): void {
    this.#source.lose();
    this.#stopReading();
    this.#stopReading = () => {};
    this.#pull = undefined;
  }

  async #serve(): Promise<void> {
    const { clock, log } = this.#host;
    this.#server = await NbdServer.open({
      path: this.socketPath,
      source: this.#source,
      open: true,
      clock,
      log,
    });
  }

  /** Resolves when all of it is here. */
  async #arrive(): Promise<HeldImage> {
    const { images, pulls, findData } = this.#host;
    const { digest, tenant } = this.record;
    if (this.#pull === undefined && (await images.hasSound(digest))) {
      const held = await images.hold(digest, tenant);
      this.#file = await FileSource.open(held.path, findData);
      this.#source.use(this.#file);
      return held;
    }
    if (this.#pull === undefined) this.#read(await pulls.begin(this.record, this.#host.origins(this.record)));
    this.#problem = undefined;
    return (this.#pull as unknown as ImagePull).image;
  }

  /** Its tenants have it, guests read it where it lies, and nothing is left of how it came. Never rejects. */
  async #settle(): Promise<void> {
    const wireBytes = this.#pull?.progress.wireBytes ?? 0;
    for (const instance of instancesIn(this.record)) await this.#assign(instance);
    for (const tenant of [...this.#tenants.keys()])
      await this.#mark(tenant).catch((error: unknown) => {
        this.#log.warn({ tenant, problem: messageOf(error) }, "a tenant's use of an image is not noted");
      });
    const held = this.#held as HeldImage;
    const arrived = { id: held.digest, path: held.path };
    while (!this.#closed && !(await this.#host.localise(arrived)))
      await sleep(this.#host.clock, LOCALISE_RETRY_MS);
    if (this.#closed) return;
    this.#settled = true;
    await this.close();
    try {
      await rm(this.linkPath, { force: true });
      await this.#host.settled(this.record);
    } catch (error) {
      this.#log.warn({ problem: messageOf(error) }, "something is left of how an image came");
    }
    const { sizeBytes } = this.record;
    this.#log.info({ sizeBytes, wireBytes }, "all of an image is here");
    this.#letGoUnneeded();
  }

  async #assign({ tenant, identifier }: { tenant: string; identifier?: string }): Promise<void> {
    const { images } = this.#host;
    const { digest } = this.record;
    const warn = (message: string) => (error: unknown) => {
      this.#log.warn({ tenant, identifier, problem: messageOf(error) }, message);
      return false;
    };
    if (
      identifier !== undefined &&
      (await images.assign(digest, { tenant, identifier }).catch(warn("an image that came has no name here")))
    )
      return;
    await images
      .assign(digest, { tenant, identifier: undefined })
      .catch(warn("a tenant was not given an image that came"));
  }

  /** Notes that chains of a tenant's use it. Errors as those of `Images.hold`. */
  async #mark(tenant: string): Promise<void> {
    if (this.#tenants.get(tenant)?.held !== undefined) return;
    const held = await this.#host.images.hold(this.record.digest, tenant);
    const entry = this.#tenants.get(tenant);
    if (entry === undefined || entry.held !== undefined) held.letGo();
    else entry.held = held;
  }

  #leave(tenant: string): void {
    const entry = this.#tenants.get(tenant);
    if (entry === undefined) return;
    entry.users -= 1;
    if (entry.users > 0) return;
    this.#tenants.delete(tenant);
    entry.held?.letGo();
    this.#letGoUnneeded();
  }

  /** A chain whose tenant's use could not be noted keeps the agent's own hold. */
  #letGoUnneeded(): void {
    if (this.#settled && [...this.#tenants.values()].every(({ held }) => held !== undefined))
      this.#held?.letGo();
  }
}

function nameOf(origin: KnownOrigin | undefined): string {
  if (origin === undefined) return "nowhere";
  return origin.kind === "host" ? origin.name : origin.directory;
}
