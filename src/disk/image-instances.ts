import { mkdir, rm } from "node:fs/promises";
import { DiskError } from "./errors.js";
import type { FoundImage, ImageDirectories } from "./image-directories.js";
import {
  asDiskError,
  type ImageFiles,
  identifierOf,
  instanceRecord,
  isMissing,
  namesIn,
  readRecord,
  recordsIn,
  writeRecord,
} from "./image-files.js";
import { syncDirectory } from "./synced.js";
import { parseReference } from "./names.js";

/** One tenant's having of one image. */
export interface Instance {
  image: FoundImage;
  tenant: string;
  identifier: string | undefined;
  sinceMs: number;
}

/**
 * Who has which image, and calls it what. It is kept in the images' own directories, so that it comes and goes with them and is the same on all hosts.
 * A search of a tenant's looks at every image there is, whatever it is for: what others have changes neither its answer nor how it is found.
 */
export class ImageInstances {
  readonly #directories: ImageDirectories;

  constructor(directories: ImageDirectories) {
    this.#directories = directories;
  }

  /** What a tenant has, by identifier, those without one last. */
  async of(tenant: string): Promise<Instance[]> {
    const found: Instance[] = [];
    for (const image of await this.#directories.all()) found.push(...(await this.#ofImage(image, tenant)));
    const key = ({ identifier, image }: Instance) => `${identifier ?? "~"} ${image.digest}`;
    return found.sort((one, other) => (key(one) < key(other) ? -1 : 1));
  }

  /** Who has an image. */
  async ownersOf(image: FoundImage): Promise<Instance[]> {
    const found: Instance[] = [];
    for (const tenant of (await namesIn(image.files.tenants)).sort())
      found.push(...(await this.#ofImage(image, tenant)));
    return found;
  }

  /** What a reference means to a tenant: all its instances of one image, that of an identifier first. @throws DiskError `no-such-image`, `ambiguous`, `bad-name`. */
  async find(reference: string, tenant: string): Promise<Instance> {
    const parsed = parseReference(reference);
    const all = await this.of(tenant);
    if (parsed.kind === "identifier") {
      const named = all.filter(({ identifier }) => identifier === parsed.identifier).sort(byAge)[0];
      if (named !== undefined) return named;
    } else {
      const fitting = all.filter(({ image }) => image.digest.startsWith(parsed.start));
      if (new Set(fitting.map(({ image }) => image.digest)).size > 1) throw ambiguous(reference, fitting);
      if (fitting[0] !== undefined) return fitting[0];
    }
    throw new DiskError(
      "no-such-image",
      `there is no image ${reference}; ramet image list shows those there are`,
    );
  }

  /** @throws DiskError `name-taken` when the tenant calls another image so. */
  async requireFree(identifier: string, tenant: string, digest: string): Promise<void> {
    const other = (await this.of(tenant)).find(
      (instance) => instance.identifier === identifier && instance.image.digest !== digest,
    );
    if (other !== undefined) throw taken(identifier, other);
  }

  /**
   * Notes that a tenant has an image; what it has of it already stays as it is. Without an identifier, any the tenant has for it will do.
   * @throws ENOENT when the image has gone meanwhile, DiskError.
   */
  async add(
    image: FoundImage,
    as: { tenant: string; identifier: string | undefined; sinceMs: number },
  ): Promise<Instance> {
    const { tenant, identifier } = as;
    const existing = await this.#ofImage(image, tenant);
    const same = existing.find((one) => identifier === undefined || one.identifier === identifier);
    if (same !== undefined) return same;
    await writeInstance(image.files, as);
    const unnamed = existing.find((one) => one.identifier === undefined);
    // It has a name from now on.
    if (unnamed !== undefined) await this.remove(unnamed);
    return { image, tenant, identifier, sinceMs: unnamed?.sinceMs ?? as.sinceMs };
  }

  /**
   * Two hosts may give one name to two images at the same time. Each looks once it has written its own: at least one of them sees the other's.
   */
  async isAlone({ identifier, tenant, image }: Instance): Promise<boolean> {
    if (identifier === undefined) return true;
    const all = await this.of(tenant);
    return all.every((one) => one.identifier !== identifier || one.image.digest === image.digest);
  }

  async remove({ image, tenant, identifier }: Instance): Promise<void> {
    try {
      await rm(image.files.instance(tenant, identifier), { force: true });
      await syncDirectory(image.files.tenant(tenant));
    } catch (error) {
      if (!isMissing(error)) throw asDiskError(error, image.files.directory);
    }
  }

  async #ofImage(image: FoundImage, tenant: string): Promise<Instance[]> {
    const found: Instance[] = [];
    for (const name of (await recordsIn(image.files.tenant(tenant))).sort()) {
      const identifier = identifierOf(name);
      const record = await readRecord(image.files.instance(tenant, identifier), instanceRecord);
      if (record !== undefined) found.push({ image, tenant, identifier, sinceMs: record.sinceMs });
    }
    return found;
  }
}

/** Writes a tenant's record into an image's directory. @throws ENOENT when that has gone. */
export async function writeInstance(
  files: ImageFiles,
  as: { tenant: string; identifier: string | undefined; sinceMs: number },
): Promise<void> {
  try {
    await mkdir(files.tenant(as.tenant));
    await syncDirectory(files.tenants);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
  await writeRecord(files.instance(as.tenant, as.identifier), { version: 1, sinceMs: as.sinceMs });
}

function byAge(one: Instance, other: Instance): number {
  return one.sinceMs - other.sinceMs || (one.image.digest < other.image.digest ? -1 : 1);
}

function taken(identifier: string, other: Instance): DiskError {
  const { digest } = other.image;
  return new DiskError(
    "name-taken",
    `${identifier} is the name of another image, ${digest.slice(0, 12)}…: choose another with --name, or remove that one with: ramet image remove ${identifier}`,
  );
}

function ambiguous(reference: string, fitting: readonly Instance[]): DiskError {
  const digests = [...new Set(fitting.map(({ image }) => image.digest))];
  return new DiskError(
    "ambiguous",
    `${reference} is the start of ${digests.length} digests: ${digests.join(", ")}`,
  );
}
