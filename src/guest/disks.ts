/**
 * A guest's disks, as its emulator is told of them: every layer is a node of its own, named after what lies in it, and says which node it stands on. What a
 * layer's file says of that itself is never believed.
 *
 *     disk0 ─▶ disk0-<newest layer>  read-write
 *                └▶ disk0-<layer>    read-only: others stand on it, too
 *                     └▶ disk0-<base disk>  read-only, raw
 */
import { z } from "zod";
import { MAX_CHAIN_LAYERS, MAX_DISKS, MIN_DISK_RATE } from "./limits.js";

/** How disks are called, by their place. */
const DISK_NAME = /^disk(0|[1-9])$/;

/** A node's name has 31 characters at most (QEMU, sizeof BlockDriverState.node_name). */
const LAYER_DIGITS = 24;

/** As long as QEMU counts, in seconds: 136 years. */
const NEVER_GIVE_UP_S = 2 ** 32 - 1;

/** The first slot of disks on the PCI bus; they are where they are whatever else the guest has. */
const FIRST_SLOT = 0x10;

const layerSchema = z.strictObject({
  /** The uuid of a differencing disk, or the digest of a base disk. */
  id: z.string().regex(/^[0-9a-f-]{32,64}$/, "must be a uuid or a digest"),
  format: z.enum(["qcow2", "raw"]),
  path: z
    .string()
    .startsWith("/", "must be an absolute path")
    .refine((path) => !path.includes("\0"), "must not contain a zero byte"),
  /** Where its file is read, over NBD, while that is on its way from another host. */
  socket: z.string().startsWith("/", "must be an absolute path").exactOptional(),
  /** Where a base disk's file lies meanwhile; an emulator with a file system of its own has it at `path` from the start. */
  filling: z.string().startsWith("/", "must be an absolute path").exactOptional(),
  /** Its file lies in a directory that several hosts have, and is yet to be brought to this one's own. */
  shared: z.literal(true).exactOptional(),
});

const rate = z.int().min(MIN_DISK_RATE).max(Number.MAX_SAFE_INTEGER);

export const diskSchema = z.strictObject({
  name: z.string().regex(DISK_NAME, `must be disk0 to disk${MAX_DISKS - 1}`),
  sizeBytes: z.int().min(1).multipleOf(512, "must be whole sectors of 512 bytes"),
  /** The newest layer first, which alone is written; then what each stands on. */
  chain: z.array(layerSchema).min(1).max(MAX_CHAIN_LAYERS),
  /** `writeback`: through the host's page cache. `none`: past it. A flush of the guest's reaches the host's disk either way. */
  cache: z.enum(["writeback", "none"]).default("writeback"),
  /** Requests a second. */
  iops: rate.optional(),
  /** Bytes a second. */
  bps: rate.optional(),
});

/** A disk of a guest. */
export type GuestDisk = z.infer<typeof diskSchema>;
export type DiskLayer = GuestDisk["chain"][number];

/** A disk whose newest layer is put aside, at an instant, for an empty one over it. */
export interface DiskFreeze {
  disk: GuestDisk;
  overlay: DiskLayer;
}

/** Whether a layer's file is not among this host's own yet: it comes from another host, or lies where hosts share it. */
export function isUnderWay({ socket, shared }: Pick<DiskLayer, "socket" | "shared">): boolean {
  return socket !== undefined || shared === true;
}

/** The name of a layer's node in the emulator. */
export function nodeOf(disk: Pick<GuestDisk, "name">, layer: Pick<DiskLayer, "id">): string {
  return `${disk.name}-${layer.id.replaceAll("-", "").slice(0, LAYER_DIGITS)}`;
}

/** The node that is written. */
export function topNodeOf(disk: GuestDisk): string {
  return nodeOf(disk, disk.chain[0] as DiskLayer);
}

/** The device's name in the emulator, by which events and answers speak of it. */
export function deviceOf(disk: Pick<GuestDisk, "name">): string {
  return disk.name;
}

/** What has the disk in the emulator: the device is a PCI card, and its disk a part of that. */
function backendOf(disk: Pick<GuestDisk, "name">): string {
  return `/machine/peripheral/${deviceOf(disk)}/virtio-backend`;
}

/** One layer, as `blockdev-add` and -blockdev take it. What a guest discards or writes zeros to takes no room, where the file system can do that. */
export function blockNode(
  disk: GuestDisk,
  layer: DiskLayer,
  options: { backing: DiskLayer | undefined; readOnly: boolean; file?: string },
): object {
  const { backing, readOnly } = options;
  const common = { cache: { direct: disk.cache === "none", "no-flush": false }, discard: "unmap" };
  return {
    driver: layer.format,
    "node-name": nodeOf(disk, layer),
    "read-only": readOnly,
    ...common,
    "detect-zeroes": readOnly ? "off" : "unmap",
    // Read-only where the layer is, also once that becomes so: a file that said otherwise itself would be opened for writing again.
    file: options.file ?? { ...fileOf(layer), ...common },
    ...(layer.format === "raw" ? {} : { backing: backing === undefined ? null : nodeOf(disk, backing) }),
  };
}

/** A file of this host's. What the host has of it in memory stays there when an emulator that waited for a device state takes its disks: nobody on another host has written it, and others stand on it, too. */
function localFile(path: string): object {
  return { driver: "file", filename: path, "drop-cache": false };
}

/** Where a layer's file is. What is on its way is waited for, however long that takes: a guest is never told that its disk failed. */
function fileOf({ path, socket }: DiskLayer): object {
  if (socket === undefined) return localFile(path);
  return {
    driver: "nbd",
    "read-only": true,
    "reconnect-delay": NEVER_GIVE_UP_S,
    server: { type: "unix", path: socket },
  };
}

/** The node of the file that takes the place of a layer's socket. */
export function fileNode(disk: GuestDisk, layer: DiskLayer): { "node-name": string } {
  return {
    "node-name": `${nodeOf(disk, layer)}f`,
    ...localFile(layer.path),
    "read-only": true,
    cache: { direct: disk.cache === "none", "no-flush": false },
    discard: "unmap",
  } as { "node-name": string };
}

/**
 * The arguments for a guest's disks. Layers that are not written are opened read-only, the lowest first. A host's file system that is full, or a disk that fails, stops the
 * guest (`werror`), which then goes on where it was.
 */
export function diskArguments(disks: readonly GuestDisk[], form: string): string[] {
  return disks.flatMap((disk) => {
    const nodes = disk.chain.map((layer, index) =>
      blockNode(disk, layer, { backing: disk.chain[index + 1], readOnly: index > 0 }),
    );
    const slot = FIRST_SLOT + Number(DISK_NAME.exec(disk.name)?.[1]);
    const device = [
      `virtio-blk-pci,id=${deviceOf(disk)},drive=${topNodeOf(disk)},serial=${disk.name}`,
      `addr=0x${slot.toString(16)},write-cache=on,werror=stop,rerror=stop,${form}`,
    ].join(",");
    return [...nodes.toReversed().flatMap((node) => ["-blockdev", JSON.stringify(node)]), "-device", device];
  });
}

/** The limits of a disk as `block_set_io_throttle` takes them; undefined when it has none. */
export function throttleOf(disk: GuestDisk): object | undefined {
  if (disk.iops === undefined && disk.bps === undefined) return undefined;
  const none = { bps_rd: 0, bps_wr: 0, iops_rd: 0, iops_wr: 0 };
  return { id: backendOf(disk), bps: disk.bps ?? 0, iops: disk.iops ?? 0, ...none };
}

/** A command of the emulator's. */
export interface FreezeCommand {
  command: string;
  args: object;
}

/** What puts an overlay over the newest layer of each disk, of all or of none. Of one disk it is not a `transaction`, which takes 0.2 ms longer. */
export function freezeCommand(freezes: readonly DiskFreeze[]): FreezeCommand | undefined {
  const snapshots = freezes.map(({ disk, overlay }) => ({
    node: topNodeOf(disk),
    overlay: nodeOf(disk, overlay),
  }));
  if (snapshots.length === 0) return undefined;
  if (snapshots.length === 1) return { command: "blockdev-snapshot", args: snapshots[0] as object };
  const actions = snapshots.map((data) => ({ type: "blockdev-snapshot", data }));
  return { command: "transaction", args: { actions } };
}

const blockAnswer = z.array(
  z.looseObject({
    qdev: z.string().optional(),
    inserted: z.looseObject({ "node-name": z.string().optional() }).optional(),
  }),
);

/** Which node each of a guest's disks writes to, from an answer to `query-block`. Undefined when that is not one. */
export function topNodes(answer: unknown, disks: readonly GuestDisk[]): Map<string, string> | undefined {
  const parsed = blockAnswer.safeParse(answer);
  if (!parsed.success) return undefined;
  const tops = new Map<string, string>();
  for (const disk of disks) {
    const device = parsed.data.find(({ qdev }) => qdev?.split("/").includes(deviceOf(disk)) === true);
    const node = device?.inserted?.["node-name"];
    if (node === undefined) return undefined;
    tops.set(disk.name, node);
  }
  return tops;
}
