import { randomUUID } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, DEFAULT_TENANT, messageOf, type Clock, type Log } from "../../base/index.js";
import type { ArrivalView, ImageView } from "../../control/index.js";
import {
  DiskError,
  type DiskStore,
  type FindData,
  type HeldImage,
  type HoldOptions,
  type ImageLibraries,
  type ImageStore,
} from "../../disk/index.js";
import { AgentError } from "../errors.js";
import { libraryOrigin, type ImageOrigin, type NamedImage } from "../blocks/image-origins.js";
import type { ImagePulls } from "../blocks/image-pulls.js";
import { clearLeftPulls, type LeftPull } from "../blocks/left-pulls.js";
import { CALL_DEADLINE_MS, originAt, type PullServices } from "../blocks/pull-image.js";
import { localise } from "../disks/localise.js";
import type { Services } from "../services.js";
import { ArrivingImage, linkPrefix, SOCKET_PREFIX, type ArrivingImageHost } from "./arriving-image.js";
import { ArrivingRecords, instancesIn, type ArrivingRecord, type KnownOrigin } from "./arriving-record.js";

/** What is needed to ask other hosts, and to have guests read what has come. */
type HostServices = PullServices & Pick<Services, "registry">;

export interface ArrivingImagesOptions {
  images: ImageStore;
  pulls: ImagePulls;
  libraries: ImageLibraries;
  libraryDirectories: readonly string[];
  /** Hosts that are asked for images this one lacks, as commands name hosts. */
  sources: readonly string[];
  /** All of them; what comes is kept in the first. */
  imagesDirectories: readonly [string, ...string[]];
  socketDirectory: string;
  recordDirectory: string;
  hostId: string;
  findData: FindData;
  clock: Clock;
  log: Log;
}

/** An image as somebody else has it. */
interface Found extends NamedImage {
  identifier: string | undefined;
  origins: KnownOrigin[];
}

/**
 * The base disks of this host's guests: those that are here, and those that a guest runs on while they come from another host, or from a library that is copied from.
 */
export class ArrivingImages {
  readonly #options: ArrivingImagesOptions;
  readonly #records: ArrivingRecords;
  readonly #images = new Map<string, ArrivingImage>();
  /** One after the other: several guests may want the same. */
  #beginning: Promise<unknown> = Promise.resolve();
  #services: HostServices | undefined;
  #store: DiskStore | undefined;

  private constructor(options: ArrivingImagesOptions) {
    this.#options = options;
    this.#records = new ArrivingRecords({ directory: options.recordDirectory, log: options.log });
  }

  /** Serves what an earlier agent has left, and removes what it left half made. */
  static async open(options: ArrivingImagesOptions): Promise<ArrivingImages> {
    const images = new ArrivingImages(options);
    const records = await images.#records.load();
    await images.#clean(new Set(records.map(({ key }) => key)));
    for (const record of records) {
      try {
        images.#images.set(record.digest, await ArrivingImage.takeUp(record, images.#host()));
      } catch (error) {
        const { digest } = record;
        options.log.error({ digest, problem: messageOf(error) }, "an image on its way cannot be read");
      }
    }
    return images;
  }

  /** From here on hosts can be asked, and guests have what comes: what was begun goes on. */
  connect(services: HostServices, store: DiskStore): void {
    this.#services = services;
    this.#store = store;
    for (const image of this.#images.values()) void image.run();
  }

  /** Keeps a base disk for a chain, whether it is here or on its way. Errors as those of `Images.hold`. */
  async hold(digest: string, tenant = DEFAULT_TENANT, how: HoldOptions = {}): Promise<HeldImage> {
    const coming = this.#images.get(digest);
    return coming === undefined ? this.#options.images.hold(digest, tenant, how) : coming.hold(tenant);
  }

  /**
   * The digest of the base disk that a reference means to a tenant. What this host lacks begins to come from where there is one.
   * @param from the host that is asked what it calls so, as commands name it; without it this one is, then the libraries, then the configured sources.
   * @throws DiskError `no-such-image`, `ambiguous`; AgentError `no-such-peer`; what a named host says.
   */
  async find(reference: string, tenant: string, from?: string): Promise<string> {
    if (from !== undefined) return this.bring(await this.#askHost(from, reference, tenant), tenant);
    try {
      return (await this.#options.images.find(reference, tenant)).digest;
    } catch (error) {
      if (codeOf(error) !== "no-such-image") throw error;
      const coming = this.#coming(reference, tenant);
      if (coming !== undefined) return coming.digest;
      return this.bring(await this.#findElsewhere(reference, tenant, error as DiskError), tenant);
    }
  }

  /**
   * As `find`, of what is all here: nothing begins to come for it.
   * @throws DiskError `no-such-image`, `ambiguous`; AgentError `not-ready` while it comes.
   */
  async findHere(reference: string, tenant: string): Promise<string> {
    try {
      return (await this.#options.images.find(reference, tenant)).digest;
    } catch (error) {
      if (codeOf(error) !== "no-such-image") throw error;
      if (this.#coming(reference, tenant) !== undefined)
        throw new AgentError(
          "not-ready",
          `image ${reference} is on its way to this host (ramet image list); a disk that is copied whole waits until it is here: run the guest then`,
        );
      const message = `${messageOf(error)}; a disk that is copied whole needs it here: ramet image pull brings it from another host`;
      throw new DiskError("no-such-image", message, { cause: error });
    }
  }

  /** Has an image come, unless it is here or on its way. @returns its digest. Errors as those of `ImagePulls.begin`. */
  bring(found: Found, tenant: string): Promise<string> {
    const bringing = this.#beginning.then(async () => {
      const { images } = this.#options;
      const { digest, sizeBytes, identifier } = found;
      if (this.#images.has(digest)) await this.#addTenant(digest, { tenant, identifier });
      if (this.#images.has(digest)) return digest;
      if (await images.has(digest)) {
        await giveAsCalled(images, digest, { tenant, identifier });
        return digest;
      }
      const record: ArrivingRecord = {
        version: 1,
        digest,
        sizeBytes,
        tenant,
        ...(identifier === undefined ? {} : { identifier }),
        key: randomUUID(),
        origins: found.origins,
        sinceMs: this.#options.clock.wallMs(),
      };
      await this.#begin(record);
      return digest;
    });
    this.#beginning = bringing.catch(() => {});
    return bringing;
  }

  /** A tenant has an image that comes for another one, too: at once when all of it is here, else when it is. */
  async #addTenant(digest: string, as: { tenant: string; identifier: string | undefined }): Promise<void> {
    const coming = this.#images.get(digest);
    if (coming === undefined || instancesIn(coming.record).some(({ tenant }) => tenant === as.tenant)) return;
    coming.addTenant(as.tenant, as.identifier);
    await this.#records.save(coming.record);
    const { images } = this.#options;
    if (await images.has(digest)) await giveAsCalled(images, digest, as);
  }

  /** How far an image is; undefined when it is here. */
  arrivalOf(digest: string): ArrivalView | undefined {
    return this.#images.get(digest)?.arrival;
  }

  /** What comes for a tenant. */
  list(tenant: string): ImageView[] {
    return [...this.#images.values()].flatMap(({ record }) => {
      const mine = instancesIn(record).find((instance) => instance.tenant === tenant);
      const view = mine === undefined ? undefined : this.#view(record, mine);
      return view === undefined ? [] : [view];
    });
  }

  /** Removes what came of images that nobody brings any more; those that guests run on stay. As `clearLeftPulls`. */
  async clearLeft(options: { unusedForMs: number; dryRun: boolean }): Promise<LeftPull[]> {
    const noted = await this.#records.digests();
    const isArriving = (digest: string): boolean => noted.has(digest) || this.#images.has(digest);
    const { pulls, imagesDirectories: directories } = this.#options;
    return clearLeftPulls(pulls, { ...this.#options, ...options, directories, isArriving });
  }

  /** Stops; what has come stays, and emulators wait for the next agent. */
  async close(): Promise<void> {
    await this.#beginning;
    await Promise.all([...this.#images.values()].map((image) => image.close()));
  }

  async #begin(record: ArrivingRecord): Promise<void> {
    const image = await ArrivingImage.begin(record, this.#host());
    if (image === undefined) {
      const { tenant, identifier } = record;
      await giveAsCalled(this.#options.images, record.digest, { tenant, identifier });
      return;
    }
    try {
      await this.#records.save(record);
    } catch (error) {
      await image.close();
      await rm(image.linkPath, { force: true });
      throw error;
    }
    this.#images.set(record.digest, image);
    const { digest, origins } = record;
    this.#options.log.info({ digest, origins }, "an image is brought while guests run on it");
    void image.run();
  }

  #view(record: ArrivingRecord, mine: { tenant: string; identifier?: string }): ImageView | undefined {
    const { digest, sizeBytes, sinceMs } = record;
    const arriving = this.arrivalOf(digest);
    return arriving === undefined
      ? undefined
      : { digest, sizeBytes, ...mine, sinceMs, isUsed: true, arriving };
  }

  /** What a reference means of what comes for a tenant. */
  #coming(reference: string, tenant: string): ImageView | undefined {
    const isMeant = ({ identifier, digest }: ImageView): boolean =>
      identifier === reference || (reference.length >= LEAST_DIGITS && digest.startsWith(reference));
    return this.list(tenant).find(isMeant);
  }

  async #findElsewhere(reference: string, tenant: string, lacking: DiskError): Promise<Found> {
    const { libraries, sources } = this.#options;
    const there = await libraries.find(reference, tenant);
    if (there !== undefined) return { ...there, origins: [{ kind: "library", directory: there.directory }] };
    const refusals: string[] = [];
    for (const source of sources) {
      try {
        return await this.#askHost(source, reference, tenant);
      } catch (error) {
        refusals.push(`${source}: ${messageOf(error)} (${codeOf(error)})`);
      }
    }
    if (refusals.length === 0) throw lacking;
    throw new DiskError("no-such-image", `${lacking.message}; others were asked: ${refusals.join("; ")}`);
  }

  async #askHost(name: string, reference: string, tenant: string): Promise<Found> {
    const { peers } = this.#connected();
    const url = peers.resolve(name);
    if (peers.isSelf(url)) {
      const { digest, sizeBytes, identifier } = await this.#options.images.find(reference, tenant);
      return { digest, sizeBytes, identifier, origins: [] };
    }
    const client = await peers.connect(url);
    const params = { reference, tenant };
    const found = await client.call("peer.findImage", params, { deadlineMs: CALL_DEADLINE_MS });
    return { ...found, identifier: found.identifier, origins: [{ kind: "host", name, url }] };
  }

  #host(): ArrivingImageHost {
    return {
      ...this.#options,
      imagesDirectory: this.#options.imagesDirectories[0],
      origins: (record) => this.#originsOf(record),
      localise: (arrived) =>
        this.#store === undefined
          ? Promise.resolve(false)
          : localise(this.#connected(), this.#store, arrived),
      settled: async (record) => {
        this.#images.delete(record.digest);
        await this.#records.remove(record);
      },
    };
  }

  /** Where it was found first, and then wherever else it may be. */
  #originsOf({ origins, tenant }: ArrivingRecord): ImageOrigin[] {
    const { libraryDirectories, sources } = this.#options;
    const { peers } = this.#connected();
    const others: KnownOrigin[] = libraryDirectories.map((directory) => ({ kind: "library", directory }));
    for (const name of sources) {
      try {
        const url = peers.resolve(name);
        if (!peers.isSelf(url)) others.push({ kind: "host", name, url });
      } catch (error) {
        this.#options.log.warn(
          { source: name, problem: messageOf(error) },
          "a source of images is not known",
        );
      }
    }
    const placeOf = (origin: KnownOrigin): string => (origin.kind === "host" ? origin.url : origin.directory);
    const all = new Map([...origins, ...others].toReversed().map((origin) => [placeOf(origin), origin]));
    return [...all.values()].toReversed().map((origin) => this.#originAt(origin, tenant));
  }

  #originAt(origin: KnownOrigin, tenant: string): ImageOrigin {
    if (origin.kind === "library") return libraryOrigin(origin.directory, this.#options);
    return originAt(this.#connected(), { ...origin, tenant });
  }

  #connected(): HostServices {
    if (this.#services === undefined) throw new Error("hosts are asked for images once there are peers");
    return this.#services;
  }

  /** Removes files and sockets of images whose record was not written any more, or was removed. */
  async #clean(keys: ReadonlySet<string>): Promise<void> {
    const { imagesDirectories, socketDirectory, hostId, log } = this.#options;
    for (const [directory, prefix] of [
      [imagesDirectories[0], linkPrefix(hostId)],
      [socketDirectory, SOCKET_PREFIX],
    ] as const) {
      try {
        for (const name of await readdir(directory)) {
          if (!name.startsWith(prefix) || keys.has(name.slice(prefix.length))) continue;
          await rm(join(directory, name), { force: true });
        }
      } catch (error) {
        if (codeOf(error) !== "ENOENT")
          log.warn(
            { directory, problem: messageOf(error) },
            "what is left of images on their way was not looked for",
          );
      }
    }
  }
}

/** Gives a tenant an image that is here: as it is called elsewhere, or without a name where the tenant calls another one so. */
async function giveAsCalled(
  images: Pick<ImageStore, "assign">,
  digest: string,
  as: { tenant: string; identifier: string | undefined },
): Promise<void> {
  try {
    await images.assign(digest, as);
  } catch (error) {
    if (codeOf(error) !== "name-taken") throw error;
    await images.assign(digest, { tenant: as.tenant, identifier: undefined });
  }
}

/** Least digits of a digest that name an image. */
const LEAST_DIGITS = 8;
