import { z } from "zod";
import { MAX_CHAIN_LAYERS, MAX_DISKS, MAX_LISTED } from "../limits.js";
import {
  count,
  guestName,
  hostAddress,
  message,
  optional,
  sha256,
  sharedDirectory,
  u32,
  uuid,
  wallMs,
} from "./common.js";

/** A disk's sectors have 512 bytes; 4 TiB is the most. */
export const diskBytes = z
  .int()
  .min(512)
  .max(4 * 1024 ** 4)
  .multipleOf(512, "must be whole sectors of 512 bytes");

const MIN_RATE = 10;
const rate = z.int().min(MIN_RATE).max(Number.MAX_SAFE_INTEGER);

export const DISK_CACHES = ["writeback", "none"] as const;
const cache = z.enum(DISK_CACHES);

/** A base disk by identifier or digest, or at least 8 digits of that. */
const imageReference = z
  .string()
  .max(255)
  .regex(/^[\x21-\x7e]+$/, "must be an image's identifier or digest");

/**
 * A disk of a new guest: over a base disk (`image`), over another differencing disk, which is never written again (`parent`), or blank (`size` alone). Unless it is `differencing`, all
 * that it would stand on is copied into it before the guest's first instruction.
 */
export const requestedDisk = z
  .strictObject({
    image: optional(imageReference),
    /** The host that is asked what it calls so, instead of this one; it is run on while it comes from there. */
    from: optional(hostAddress),
    parent: optional(uuid),
    differencing: z.boolean().default(true),
    /** At least that of what it stands on, which it is when it is absent. */
    sizeBytes: optional(diskBytes),
    cache: cache.default("writeback"),
    /** Requests a second. */
    iops: optional(rate),
    /** Bytes a second. */
    bps: optional(rate),
  })
  .refine(({ image, parent }) => image === undefined || parent === undefined, {
    message: "has an image or a parent, not both",
  })
  .refine(({ image, from }) => image !== undefined || from === undefined, {
    message: "comes from a host when it is an image",
  })
  .refine(({ from, differencing }) => from === undefined || differencing, {
    message:
      "is copied whole from an image that is all here: without from, after it was brought (ramet image pull)",
  })
  .refine(
    ({ image, parent, sizeBytes }) => image !== undefined || parent !== undefined || sizeBytes !== undefined,
    { message: "needs an image, a parent or a size" },
  );
export type RequestedDisk = z.output<typeof requestedDisk>;

/** What is on its way to this host, and used meanwhile. */
export const arrival = z.object({
  /** Where it comes from: a host, or a library. */
  host: z.string().max(4095),
  /** What is here of the file, and what it has; both 0 before a fork's instant. */
  hereBytes: count,
  fileBytes: count,
  /** What came over the network for it. */
  wireBytes: count,
  /** Why nothing comes at present. */
  message: optional(message),
});
export type ArrivalView = z.infer<typeof arrival>;

/** One layer of a chain, as people see it: a base disk by its digest, a differencing disk by its uuid. */
export const layerView = z.object({
  kind: z.enum(["image", "disk"]),
  id: z.string().max(64),
  /** Its file is on its way; said of a guest that is shown alone. */
  arriving: optional(arrival),
});

export type LayerView = z.infer<typeof layerView>;

/** A disk of a guest. */
export const guestDisk = z.object({
  name: z.string().max(15),
  sizeBytes: diskBytes,
  cache,
  iops: optional(rate),
  bps: optional(rate),
  /** The newest layer first, which alone is written. */
  chain: z.array(layerView).max(MAX_CHAIN_LAYERS),
});
export type GuestDiskView = z.infer<typeof guestDisk>;

/** A disk of a guest that is forked to another host: what the child's stands on. */
export const peerDisk = z
  .strictObject({
    name: z.string().regex(/^disk[0-9]$/, "must be disk0 to disk9"),
    sizeBytes: diskBytes,
    cache,
    iops: optional(rate),
    bps: optional(rate),
    /** Differencing disks that are frozen by the instant, the newest first. */
    layers: z.array(z.strictObject({ id: uuid, sizeBytes: diskBytes })).max(MAX_CHAIN_LAYERS),
    /** The base disk under them, by its digest. */
    image: optional(sha256),
  })
  .refine(({ layers, image }) => layers.length > 0 || image !== undefined, {
    message: "stands on something",
  });
export type PeerDisk = z.output<typeof peerDisk>;

/** A differencing disk of a host. */
export const diskView = z.object({
  id: uuid,
  parent: optional(layerView),
  sizeBytes: diskBytes,
  /** What its file takes on the host. */
  usedBytes: count,
  /** Others stand on it, or did: it is never written again. */
  frozen: z.boolean(),
  children: count,
  /** The guest that writes it. */
  guest: optional(guestName),
  createdAtMs: wallMs,
  /** Its file is on its way from another host. */
  arriving: optional(arrival),
  /** Its file lies in this directory, which several hosts have, and is yet to be brought to this one's own. */
  sharedAt: optional(sharedDirectory),
  /** How far it is on its way from there, once it may be brought, and why it does not get on. */
  home: optional(z.object({ hereBytes: count, fileBytes: count, message: optional(message) })),
});
export type DiskView = z.infer<typeof diskView>;

/** What came of a disk of a guest that was flattened or committed. */
export const chainOutcome = z.object({
  disk: z.string().max(15),
  /** How many layers its chain had. */
  layersBefore: z.int().min(1).max(MAX_CHAIN_LAYERS),
  /** What it has now, the newest layer first. */
  chain: z.array(layerView).max(MAX_CHAIN_LAYERS),
  copiedBytes: count,
  /** For how long the guest stood still, in microseconds; absent when it did not. */
  pauseUs: optional(count),
  /** Why nothing was done. */
  message: optional(message),
});
export type ChainOutcome = z.infer<typeof chainOutcome>;

/** How far a disk is that is flattened or committed. */
export const diskWork = z.object({
  work: u32,
  disk: z.string().max(15),
  doneBytes: count,
  sizeBytes: count,
});

/** A frozen disk whose file another host reads, for the child of a transfer. */
export const loanView = z.object({
  disk: uuid,
  transfer: u32,
  /** Who that host is: the subject of its certificate. */
  host: z.string().max(4096),
});
export type LoanView = z.infer<typeof loanView>;

const loans = z.object({ loans: z.array(loanView).max(MAX_LISTED) });

const chainParams = {
  guest: guestName,
  /** All disks of the guest, one after the other, when it is absent. */
  disk: optional(z.string().regex(/^disk[0-9]$/, "must be disk0 to disk9")),
  /** At the most so many bytes are copied a second. */
  rateBps: optional(rate),
  /** With it, `disk` events of this number come to the connection. */
  work: optional(u32),
};
const changed = z.object({ disks: z.array(chainOutcome).max(MAX_DISKS) });

/** What a guest wrote to one of its disks on a host that is lost, as a disk of this host. */
const adoptedDisk = z.object({ name: z.string().max(15), id: uuid });

export const DISK_METHODS = {
  "disk.list": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ disks: z.array(diskView).max(MAX_LISTED) }),
  },
  /** Takes what a guest that is kept here wrote elsewhere, where hosts share it: a frozen disk for each of its disks, of all or of none. */
  "disk.adopt": {
    role: "client",
    params: z.strictObject({ guest: guestName, directory: sharedDirectory }),
    result: z.object({ disks: z.array(adoptedDisk).max(MAX_DISKS) }),
  },
  "disk.chain": {
    role: "client",
    params: z.strictObject({ disk: uuid }),
    /** The newest first. */
    result: z.object({ chain: z.array(layerView).max(MAX_CHAIN_LAYERS) }),
  },
  /** What other hosts have on loan. */
  "disk.loans": { role: "client", params: z.strictObject({}), result: loans },
  /** Ends all loans of a host that is gone for good; those it had. Refused while it reads one of them, unless with `force`. */
  "disk.release": {
    role: "client",
    params: z.strictObject({ host: z.string().min(1).max(4096), force: z.boolean().default(false) }),
    result: loans,
  },
  /** Copies into what the guest writes all that lies between it and its base disk. The guest runs on. It ends when the connection does. */
  "disk.flatten": {
    role: "client",
    /** `alone`: the base disk, too. */
    params: z.strictObject({ ...chainParams, alone: z.boolean().default(false) }),
    result: changed,
  },
  /** Merges what the guest writes into the layers below that nobody else stands on. The guest runs on. It ends when the connection does. */
  "disk.commit": { role: "client", params: z.strictObject(chainParams), result: changed },
} as const;
