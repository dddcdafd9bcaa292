import { DEFAULT_TENANT, type Clock, type Log } from "../../base/index.js";
import { DiskStore, type ImageStore, type Images } from "../../disk/index.js";
import { openImages } from "../images/open-images.js";
import type { Paths } from "../store/paths.js";
import { ArrivingLayers } from "./arriving-layers.js";
import { DiskTrouble } from "./disk-trouble.js";
import { GuestDisks } from "./guest-disks.js";

/** The disks of this host, as they were left. Guests are the host's: what they name is an image of its own tenant. */
export async function openDisks(parts: {
  paths: Paths;
  images: Pick<Images, "find" | "hold">;
  clock: Clock;
  log: Log;
}): Promise<GuestDisks> {
  const { paths, images, clock, log } = parts;
  const store = await DiskStore.open({ directory: paths.disks, images, clock, log });
  const arrivals = new ArrivingLayers({ store, clock, log });
  await arrivals.takeUp();
  return new GuestDisks(
    store,
    arrivals,
    async (reference) => (await images.find(reference, DEFAULT_TENANT)).digest,
  );
}

/**
 * All that a host has of disks: base disks, differencing disks, and what is done when it fails one.
 * @param undo takes what closes them, in order.
 */
export async function openHostDisks(
  parts: Parameters<typeof openImages>[0],
  undo: (() => Promise<void> | void)[],
): Promise<{ images: ImageStore; disks: GuestDisks; onGuestEvent: DiskTrouble["note"] }> {
  const { paths, clock, log } = parts;
  const images = await openImages(parts);
  undo.push(() => images.close());
  const disks = await openDisks({ paths, images, clock, log });
  undo.push(() => disks.store.close());
  undo.push(() => disks.arrivals.close());
  const trouble = new DiskTrouble({ directory: paths.disks, clock, log });
  undo.push(() => trouble.close());
  return { images, disks, onGuestEvent: (guest, event) => trouble.note(guest, event) };
}
