import { z } from "zod";
import { MAX_MEMORY_PAGES, PAGE_BYTES, tenantOfGuest } from "../../base/index.js";
import {
  MAX_CHILDREN,
  MAX_DEVICE_STATE_BYTES,
  MAX_FILE_CHUNK_BYTES,
  MAX_GUEST_DISKS,
  MAX_LACKS_BYTES,
  MAX_LISTED,
} from "../limits.js";
import {
  append,
  architecture,
  byteString,
  count,
  cpuCount,
  durationUs,
  guestName,
  guestNetwork,
  hostAddress,
  machineName,
  memoryBytes,
  message,
  nothing,
  optional,
  sha256,
  sharedDirectory,
  u32,
  uuid,
} from "./common.js";
import { peerDisk } from "./disk.js";
import { transferKind, transferPhase, transferView } from "./transfer.js";

/** A boot file by its content, so that a peer that has it is not sent it. */
export const bootFile = z.strictObject({
  sha256,
  sizeBytes: z
    .int()
    .min(1)
    .max(4 * 1024 * 1024 * 1024),
});
export type BootFile = z.infer<typeof bootFile>;

/** What a peer must know of a guest to make an emulator that can load its device state. */
export const peerGuest = z.strictObject({
  /** That of a migrated guest, which keeps it; a fork's child gets a new one. */
  id: optional(uuid),
  name: guestName,
  architecture,
  machine: machineName,
  memoryBytes,
  cpus: cpuCount,
  append,
  kernel: optional(bootFile),
  initrd: optional(bootFile),
  network: guestNetwork,
  /** False: the network device is there, as the device state needs it, and leads nowhere. */
  attached: z.boolean(),
  vmgenid: optional(uuid),
});
export type PeerGuest = z.infer<typeof peerGuest>;

const token = z.string().regex(/^[A-Za-z0-9_-]{16,128}$/, "must be 16 to 128 characters of base64url");
const emulatorVersion = z.string().min(1).max(128);

const sharedWrites = z.strictObject({
  directory: sharedDirectory,
  mark: z.strictObject({ host: uuid, token: uuid }),
});

export const prepareParams = z
  .strictObject({
    transfer: u32,
    kind: transferKind,
    guest: peerGuest,
    /** The parent's guest and host, for messages and listings. */
    parent: z.strictObject({ guest: guestName, host: z.string().max(255) }),
    emulatorVersion,
    /** Where the child dials its page lanes, and what it shows there. */
    parentUrl: hostAddress.regex(
      /^(?:wss?:\/\/|unix:\/)/,
      "must be wss://HOST:PORT, ws://HOST:PORT on loopback, or the agent's own unix:/PATH",
    ),
    token,
    pageCount: z.int().min(1).max(MAX_MEMORY_PAGES),
    verify: z.boolean(),
    paused: z.boolean(),
    /** How long a migrated child that lacks pages runs on while the parent's host is out of reach, in ms; the child's host decides without it. */
    leaseMs: optional(z.int().min(1)),
    /** Memory is copied ahead: the child dials that lane too, and is told what it lacks before it is started. */
    precopy: z.boolean().default(false),
    /** The parent's disks, when it has any and is on another host: the child has layers of its own over them. */
    disks: optional(z.array(peerDisk).min(1).max(MAX_GUEST_DISKS)),
    /** Where both hosts have what the child writes until it is complete, and by what file of the parent's host the other sees that. */
    writes: optional(sharedWrites),
  })
  .check((context) => {
    const { guest, parent, pageCount } = context.value;
    if (tenantOfGuest(guest.name) !== tenantOfGuest(parent.guest))
      context.issues.push({
        code: "custom",
        path: ["guest", "name"],
        message: "must be of the parent's tenant",
        input: guest.name,
      });
    if (pageCount * PAGE_BYTES === guest.memoryBytes) return;
    context.issues.push({
      code: "custom",
      path: ["pageCount"],
      message: "must be guest.memoryBytes in pages of 4096 bytes",
      input: pageCount,
    });
  });

/** Not ready only because files are missing: put them, then prepare again with the same parameters. */
const readiness = z.object({
  ready: z.boolean(),
  missingFiles: z.array(sha256).max(2),
  /** Whether the first part of the device state may be sent ahead (`peer.ahead`). */
  takesAhead: optional(z.boolean()),
});

const putFileParams = z.strictObject({
  sha256,
  offset: count,
  bytes: byteString(MAX_FILE_CHUNK_BYTES),
  last: z.boolean(),
});

/** Durations on the child's host, from the command's arrival; `runUs` is 0 while the child is held. */
const started = z.object({ loadUs: durationUs, runUs: durationUs });
const byTransfer = z.strictObject({ transfer: u32 });

/** A transfer as its child's side sees it: what the parent's side cannot count itself. */
export const childReport = z.object({
  transfer: u32,
  phase: transferPhase,
  message: optional(message),
  duplicates: optional(count),
  faults: transferView.shape.faults,
  verify: transferView.shape.verify,
  disks: transferView.shape.disks,
  /** All of its memory is here, and it waits for its disks. */
  awaitsDisks: optional(z.boolean()),
});
export type ChildReport = z.infer<typeof childReport>;

/** What an agent says of itself to its peers. */
export const peerInfo = z.object({
  name: z.string().max(255),
  version: z.string().max(64),
  emulators: z
    .array(z.object({ architecture, version: emulatorVersion, machines: z.array(machineName).max(512) }))
    .max(8),
  /** Bytes of guest memory it could still take. */
  availableBytes: count,
});
export type PeerInfo = z.infer<typeof peerInfo>;

/** A peer as an agent sees it. */
export const peerView = z.object({
  address: hostAddress,
  name: optional(z.string().max(255)),
  state: z.enum(["connected", "idle", "unreachable"]),
  version: optional(z.string().max(64)),
  roundTripUs: optional(durationUs),
  transfers: count,
  message: optional(message),
});
export type PeerView = z.infer<typeof peerView>;

/** Whose lanes are let in, and where lanes must lead: who an agent has shown itself to be. */
const holder = z.strictObject({ kind: z.enum(["certificate", "key"]), name: z.string().min(1).max(4096) });

/** Another child of the same instant, to which this one passes on what it is given. */
const relayToParams = z.strictObject({
  transfer: u32,
  to: z.strictObject({ transfer: u32, token, holder }),
});

/** Where another child passes on to this one what it is given. */
const relayFromParams = z.strictObject({
  transfer: u32,
  from: z.strictObject({
    host: z.string().max(255),
    url: hostAddress.regex(/^wss?:\/\//, "must be wss://HOST:PORT, or ws://HOST:PORT on loopback"),
    token,
    holder,
  }),
});

export const PEER_METHODS = {
  "peer.list": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ peers: z.array(peerView).max(MAX_LISTED) }),
  },
  "peer.ping": {
    role: "client",
    params: z.strictObject({ to: hostAddress, count: z.int().min(1).max(100).default(4) }),
    result: z.object({
      address: hostAddress,
      name: z.string().max(255),
      version: z.string().max(64),
      roundTripsUs: z.array(durationUs).max(100),
    }),
  },
  "peer.info": { role: "peer", params: z.strictObject({}), result: peerInfo },
  "peer.prepare": { role: "peer", params: prepareParams, result: readiness },
  "peer.putFile": { role: "peer", params: putFileParams, result: z.object({ nextOffset: count }) },
  /** What a child lacks after its memory was copied ahead, in pieces without gaps: bit P % 8 of byte P / 8 is page firstPage + P. */
  "peer.lacks": {
    role: "peer",
    params: z.strictObject({
      transfer: u32,
      firstPage: z.int().min(0).max(MAX_MEMORY_PAGES),
      bits: byteString(MAX_LACKS_BYTES),
      last: z.boolean(),
    }),
    result: nothing,
  },
  "peer.relayTo": { role: "peer", params: relayToParams, result: nothing },
  "peer.relayFrom": { role: "peer", params: relayFromParams, result: nothing },
  /**
   * The first part of a prepared child's device state, once; `peer.start` then brings the rest. It is firmware mostly, which the child's host may know by its
   * digest from another child: without `deviceState` it is asked for that.
   */
  "peer.ahead": {
    role: "peer",
    params: z.strictObject({
      transfer: u32,
      sha256,
      deviceState: optional(byteString(MAX_DEVICE_STATE_BYTES)),
    }),
    result: z.object({ taken: z.boolean() }),
  },
  "peer.start": {
    role: "peer",
    params: z.strictObject({
      transfer: u32,
      deviceState: byteString(MAX_DEVICE_STATE_BYTES),
      /** Bytes of it that were sent ahead and are not sent again. */
      ahead: optional(count),
      run: z.boolean(),
    }),
    result: started,
  },
  "peer.run": { role: "peer", params: byTransfer, result: started },
  /** What the child's side knows of a transfer, as its last `peerTransfer` event said, or would have said. */
  "peer.show": { role: "peer", params: byTransfer, result: childReport },
  "peer.cancel": {
    role: "peer",
    params: z.strictObject({ transfer: u32, reason: message }),
    result: nothing,
  },
  /** The child of a migration that is rolled back: it stands still for good, and is kept. */
  "peer.fence": {
    role: "peer",
    params: z.strictObject({ transfer: u32, reason: message }),
    result: nothing,
  },
  "peer.warm": {
    role: "peer",
    params: z.strictObject({
      guest: peerGuest,
      emulatorVersion,
      count: z.int().min(0).max(MAX_CHILDREN),
    }),
    result: z.object({ ready: z.boolean(), missingFiles: z.array(sha256).max(2), count }),
  },
  /** Dials the page lanes of a transfer that is to come, so that its child need not wait for them. Answered when they are there. */
  "peer.spare": {
    role: "peer",
    params: z.strictObject({
      transfer: u32,
      token,
      parentUrl: hostAddress.regex(/^wss?:\/\//, "must be wss://HOST:PORT, or ws://HOST:PORT on loopback"),
    }),
    result: nothing,
  },
} as const;
