import type { Clock, Log } from "../../base/index.js";
import { DiskStore, ImageLibraries, type ImageStore } from "../../disk/index.js";
import type { LoadedConfiguration } from "../configuration/index.js";
import { findData } from "../../memory/index.js";
import { ImagePulls } from "../blocks/image-pulls.js";
import { ArrivingImages } from "../images/arriving-images.js";
import { openImages, ownHostId } from "../images/open-images.js";
import type { Paths } from "../store/paths.js";
import { ArrivingLayers } from "./arriving-layers.js";
import { ChainWorks } from "./chain-works.js";
import { DiskTrouble } from "./disk-trouble.js";
import { GuestDisks } from "./guest-disks.js";
import { SharedWrites } from "./shared-writes.js";

/** The disks of this host, as they were left. */
export async function openDisks(parts: {
  paths: Paths;
  configuration: Pick<LoadedConfiguration, "name" | "sharedDirectories">;
  images: Pick<ArrivingImages, "find" | "findHere" | "hold">;
  clock: Clock;
  log: Log;
}): Promise<GuestDisks> {
  const { paths, configuration, images, clock, log } = parts;
  const store = await DiskStore.open({ directory: paths.disks, images, clock, log });
  const arrivals = new ArrivingLayers({ store, borrowed: paths.borrowed, clock, log });
  await arrivals.takeUp();
  const sharedWrites = new SharedWrites({
    directories: configuration.sharedDirectories,
    host: { id: await ownHostId(paths.hostId), name: configuration.name },
    clock,
    log,
  });
  const findImage: ConstructorParameters<typeof GuestDisks>[0]["findImage"] = (
    reference,
    tenant,
    { from, isHere },
  ) => (isHere ? images.findHere(reference, tenant) : images.find(reference, tenant, from));
  return new GuestDisks({ store, arrivals, sharedWrites, findImage });
}

/**
 * All that a host has of disks: base disks, differencing disks, and what is done when it fails one.
 * @param undo takes what closes them, in order.
 */
export async function openHostDisks(
  parts: Parameters<typeof openImages>[0],
  undo: (() => Promise<void> | void)[],
): Promise<{
  images: ImageStore;
  pulls: ImagePulls;
  arrivingImages: ArrivingImages;
  disks: GuestDisks;
  chains: ChainWorks;
  onGuestEvent: DiskTrouble["note"];
}> {
  const { paths, clock, log } = parts;
  const images = await openImages(parts);
  undo.push(() => images.close());
  const { pulls, arrivingImages } = await openArriving(parts, images);
  undo.push(() => pulls.close());
  undo.push(() => arrivingImages.close());
  const disks = await openDisks({
    paths,
    configuration: parts.configuration,
    images: arrivingImages,
    clock,
    log,
  });
  undo.push(() => disks.sharedWrites.close());
  undo.push(() => disks.store.close());
  undo.push(() => disks.arrivals.close());
  const trouble = new DiskTrouble({ directory: paths.disks, clock, log });
  undo.push(() => trouble.close());
  const onGuestEvent: DiskTrouble["note"] = (guest, event) => trouble.note(guest, event);
  return { images, pulls, arrivingImages, disks, chains: new ChainWorks(), onGuestEvent };
}

/** What brings base disks, and has guests run on them meanwhile. */
async function openArriving(
  parts: Parameters<typeof openImages>[0],
  images: ImageStore,
): Promise<{ pulls: ImagePulls; arrivingImages: ArrivingImages }> {
  const { configuration, paths, clock, log } = parts;
  const { directories, libraries, sources } = configuration.images;
  const [directory = paths.images, ...more] = directories ?? [];
  const hostId = await ownHostId(paths.hostId);
  const common = { images, hostId, findData, clock, log };
  const pulls = new ImagePulls({ ...common, directory });
  const arrivingImages = await ArrivingImages.open({
    ...common,
    pulls,
    libraries: new ImageLibraries({ directories: libraries, hostId, clock, log }),
    libraryDirectories: libraries,
    sources,
    imagesDirectories: [directory, ...more],
    socketDirectory: paths.disks,
    recordDirectory: paths.arrivingImages,
  });
  return { pulls, arrivingImages };
}
