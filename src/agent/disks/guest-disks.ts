import { statSync } from "node:fs";
import { dirname } from "node:path";
import type {
  ArrivalView,
  DiskView,
  GuestDiskView,
  GuestView,
  LayerView,
  RequestedDisk,
} from "../../control/index.js";
import type { ArrivingLayers } from "./arriving-layers.js";
import type { SharedWrites } from "./shared-writes.js";
import { DiskError, type ChainLayer, type Disk, type DiskParent, type DiskStore } from "../../disk/index.js";
import type { Services } from "../services.js";
import type { GuestDisk, Place } from "../../guest/index.js";

/** Bytes that `stat` counts by. */
const BLOCK_BYTES = 512;

/** Finds the base disk that a tenant calls so, on the host named, or one that `isHere`; its digest. Errors as those of `ArrivingImages.find`. */
type FindImage = (
  reference: string,
  tenant: string,
  where: { from?: string | undefined; isHere: boolean },
) => Promise<string>;

/** The disks of a guest that is being forked. */
export interface ForkedDisks {
  readonly hasDisks: boolean;
  layFor(child: string): Promise<GuestDisk[]>;
}

/** The disks of this host's guests: what one writes is nobody else's. */
export class GuestDisks {
  readonly store: DiskStore;
  /** Forks under way, by the name of the guest that is forked: where children on its own host find what they stand on. */
  readonly forks = new Map<string, ForkedDisks>();

  /** Disks whose files are on their way from other hosts. */
  readonly arrivals: ArrivingLayers;
  /** Where guests that come from other hosts may write until all of them is here. */
  readonly sharedWrites: SharedWrites;
  readonly #findImage: FindImage;
  #usedLayers: () => ReadonlySet<string> = () => new Set();

  constructor(parts: {
    store: DiskStore;
    arrivals: ArrivingLayers;
    sharedWrites: SharedWrites;
    findImage: FindImage;
  }) {
    this.store = parts.store;
    this.arrivals = parts.arrivals;
    this.sharedWrites = parts.sharedWrites;
    this.#findImage = parts.findImage;
  }

  /**
   * Makes the disks a new guest asks for; of all or of none.
   * @param options.tenant whose guest it is: it stands on that tenant's images and disks only.
   * @param options.isLive whether an emulator has the guest of this id.
   * @param options.used layers in the chains of other guests.
   * @throws DiskError `no-such-image`, `no-such-disk`, `in-use`, `bad-size`, `too-deep`, `no-room`.
   */
  async make(
    requests: readonly RequestedDisk[],
    options: { guest: string; tenant: string; isLive: (guest: string) => boolean; used: ReadonlySet<string> },
  ): Promise<GuestDisk[]> {
    const disks: GuestDisk[] = [];
    try {
      for (const request of requests) {
        const { sizeBytes, cache, iops, bps } = request;
        const parent = await this.#parentOf(request, options);
        const disk = await this.store.create({
          ...(parent === undefined ? {} : { parent }),
          ...(sizeBytes === undefined ? {} : { sizeBytes }),
          writer: options.guest,
          tenant: options.tenant,
        });
        const limits = { ...(iops === undefined ? {} : { iops }), ...(bps === undefined ? {} : { bps }) };
        disks.push({ ...this.#layersOf(disk), name: `disk${disks.length}`, cache, ...limits });
      }
      return disks;
    } catch (error) {
      await this.forget(options.guest, options.used);
      throw error;
    }
  }

  /**
   * Empty layers for another guest to write, each over the newest of a disk. Those must not be written any more when it comes to run.
   * @param over disks as they will be below. Errors as those of `DiskStore.create`.
   * @param options.tenant whose guest that is, and whose disks these are.
   * @param options.sharedAt where hosts share what is written, until it is brought home.
   */
  async layOver(
    over: readonly GuestDisk[],
    guest: string,
    options: { tenant: string; sharedAt?: string },
  ): Promise<GuestDisk[]> {
    const disks: GuestDisk[] = [];
    for (const disk of over) {
      const top = disk.chain[0] as ChainLayer;
      const parent: DiskParent = top.format === "raw" ? { image: top.id } : { disk: top.id };
      const made = await this.store.create({ ...options, parent, sizeBytes: disk.sizeBytes, writer: guest });
      disks.push({ ...disk, ...this.#layersOf(made) });
    }
    return disks;
  }

  /**
   * Removes what only this guest had: what it writes, what was adopted for it, and what those stand on as far as nobody else needs it.
   * @param used layers in the chains of other guests.
   */
  async forget(guest: string, used: ReadonlySet<string>): Promise<void> {
    const adopted = await this.store.shared.disown(guest);
    const own = this.store.list().filter(({ id, writer }) => writer === guest || adopted.includes(id));
    // The newest first: one may stand on another.
    const ids = own.map(({ id }) => id).toReversed();
    await this.store.removeUnused(
      ids,
      ({ id, writer }) => used.has(id) || (writer !== undefined && writer !== guest),
    );
    await this.arrivals.dropRemoved();
  }

  /** From here on there are guests, and hosts can be asked for what is on its way. */
  connect(services: Parameters<ArrivingLayers["connect"]>[0] & Parameters<SharedWrites["connect"]>[0]): void {
    this.#usedLayers = () => layersOf(services.registry.list());
    this.arrivals.connect(services);
    this.sharedWrites.connect(services);
  }

  /** Removes disks that no guest and no other host needs, and what they stand on. */
  async removeUnused(ids: readonly string[]): Promise<void> {
    const used = this.#usedLayers();
    await this.store.removeUnused(ids, ({ id, writer }) => used.has(id) || writer !== undefined);
    await this.arrivals.dropRemoved();
  }

  /** Removes what no guest has: made just before an agent ended. Does nothing while there are disks that cannot be read. */
  async removeStray(isGuest: (id: string) => boolean, used: ReadonlySet<string>): Promise<string[]> {
    if (this.store.hasUnreadable) return [];
    for (const { adoptedFor } of this.store.list())
      if (adoptedFor !== undefined && !isGuest(adoptedFor)) await this.store.shared.disown(adoptedFor);
    const isUsed = ({ id, writer }: Disk): boolean =>
      used.has(id) || (writer !== undefined && isGuest(writer));
    return this.store.removeUnused(
      this.store
        .list()
        .map(({ id }) => id)
        .toReversed(),
      isUsed,
    );
  }

  /** A differencing disk as a client sees it. */
  view(disk: Disk, nameOf: (guest: string) => string | undefined): DiskView {
    const { id, parent, sizeBytes, frozen, createdAtMs } = disk;
    const guest = disk.writer === undefined ? undefined : nameOf(disk.writer);
    const arriving = this.arrivals.progressOf(disk);
    const blocks = statSync(this.store.pathOf(id), { throwIfNoEntry: false })?.blocks ?? 0;
    return {
      id,
      ...(parent === undefined ? {} : { parent: layerOf(parent) }),
      sizeBytes,
      usedBytes: blocks * BLOCK_BYTES,
      frozen,
      children: this.store.childrenOf(id).length,
      ...(guest === undefined ? {} : { guest }),
      createdAtMs,
      ...this.#viewShared(disk),
      ...(arriving === undefined ? {} : { arriving }),
    };
  }

  #viewShared({ id, sharedAt }: Disk): Pick<DiskView, "sharedAt" | "home"> {
    if (sharedAt === undefined) return {};
    const home = this.sharedWrites.progressOf(id);
    return { sharedAt, ...(home === undefined ? {} : { home }) };
  }

  #layersOf(disk: Disk): Pick<GuestDisk, "sizeBytes" | "chain"> {
    return { sizeBytes: disk.sizeBytes, chain: this.store.chainOf(disk.id) };
  }

  async #parentOf(
    { image, from, parent, differencing }: RequestedDisk,
    { tenant, isLive }: { tenant: string; isLive: (guest: string) => boolean },
  ): Promise<DiskParent | undefined> {
    if (image !== undefined)
      return { image: await this.#findImage(image, tenant, { from, isHere: !differencing }) };
    if (parent === undefined) return undefined;
    const { writer } = this.store.get(parent, tenant);
    if (writer !== undefined && isLive(writer)) {
      throw new DiskError(
        "in-use",
        `disk ${parent} is written by a guest that runs: fork that guest, or name one it stands on (ramet disk chain ${parent})`,
      );
    }
    await this.store.freeze(parent);
    return { disk: parent };
  }
}

/** The layers in the chains of guests, of all but one. */
export function layersOf(
  guests: readonly { id: string; config: { disks: readonly GuestDisk[] } }[],
  { but }: { but?: string } = {},
): Set<string> {
  const disks = guests.flatMap(({ id, config }) => (id === but ? [] : config.disks));
  return new Set(disks.flatMap(({ chain }) => chain.map(({ id }) => id)));
}

/** A guest's disk as a client sees it. */
export function guestDiskView({ name, sizeBytes, cache, iops, bps, chain }: GuestDisk): GuestDiskView {
  return {
    name,
    sizeBytes,
    cache,
    ...(iops === undefined ? {} : { iops }),
    ...(bps === undefined ? {} : { bps }),
    chain: chain.map(layerViewOf),
  };
}

/** A layer of a chain as a client sees it. */
export function layerViewOf({ id, format }: Pick<ChainLayer, "id" | "format">): {
  kind: "image" | "disk";
  id: string;
} {
  return { kind: format === "raw" ? "image" : "disk", id };
}

/** A guest as a client sees it alone: with how far its layers are that are on their way. */
export function withArrivals(
  { disks, arrivingImages }: Pick<Services, "disks" | "arrivingImages">,
  guest: GuestView,
): GuestView {
  if (guest.disks === undefined) return guest;
  const arrivalOf = ({ kind, id }: LayerView): ArrivalView | undefined => {
    if (kind === "image") return arrivingImages.arrivalOf(id);
    return disks.store.has(id) ? disks.arrivals.progressOf({ id }) : undefined;
  };
  const shown = (layer: LayerView): LayerView => {
    const arriving = arrivalOf(layer);
    return arriving === undefined ? layer : { ...layer, arriving };
  };
  return { ...guest, disks: guest.disks.map((disk) => ({ ...disk, chain: disk.chain.map(shown) })) };
}

function layerOf(parent: DiskParent): { kind: "image" | "disk"; id: string } {
  return "image" in parent ? { kind: "image", id: parent.image } : { kind: "disk", id: parent.disk };
}

/** What an emulator of a guest must see of the host for its disks: the directory of the layers, and each base disk. */
export function diskPlaces(disks: readonly GuestDisk[]): { writable: string[]; readOnly: Place[] } {
  const layers = disks.flatMap(({ chain }) => chain);
  const differencing = layers.filter(({ format }) => format === "qcow2");
  const images = new Map(layers.filter(({ format }) => format === "raw").map((layer) => [layer.path, layer]));
  return {
    writable: [...new Set(differencing.map(({ path }) => dirname(dirname(path))))],
    readOnly: [...images.values()].map(({ path, filling }) => ({ source: filling ?? path, target: path })),
  };
}
