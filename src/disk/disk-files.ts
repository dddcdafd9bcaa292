import type { ChainLayer } from "./disk-entry.js";
import { DiskError, isNoRoom } from "./errors.js";
import type { HeldImage } from "./images.js";
import { MAX_CHAIN_DISKS, MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";

/** Why nothing more can stand on a disk. */
export function tooDeep(id: string): DiskError {
  return new DiskError(
    "too-deep",
    `disk ${id} stands on so many others that no more can be put over it (${MAX_CHAIN_DISKS} is the most)`,
  );
}

/** @param at.tenant whose it was to be; no other words are used for one that is another's. */
export function noSuchDisk(id: string, at: { tenant: string | undefined; isUnreadable: boolean }): DiskError {
  if (at.tenant !== undefined)
    return new DiskError("no-such-disk", `the tenant ${at.tenant} has no disk ${id} on this host`);
  const why = at.isUnreadable ? "; it has one that cannot be read, see the agent's log" : "";
  return new DiskError("no-such-disk", `this host has no disk ${id}${why}`);
}

/** Why nothing can be put over a disk at present. */
export function claimed(id: string): DiskError {
  return new DiskError(
    "in-use",
    `disk ${id}, or one below, is being merged with others; try again when that is over`,
  );
}

/** A differencing disk as a layer of a chain. */
export function diskLayer(
  id: string,
  path: string,
  { socket, isShared = false }: { socket: string | undefined; isShared: boolean | undefined },
): ChainLayer {
  const meanwhile = socket === undefined ? {} : { socket };
  return { id, format: "qcow2", path, ...meanwhile, ...(isShared ? { shared: true as const } : {}) };
}

/** A base disk as the last layer of a chain. */
export function imageLayer({ digest, path, arriving }: HeldImage): ChainLayer {
  const meanwhile = arriving === undefined ? {} : { socket: arriving.socket, filling: arriving.file };
  return { id: digest, format: "raw", path, ...meanwhile };
}

/** @throws DiskError `bad-size`. */
export function checkedSize(sizeBytes: number | undefined, leastBytes = SECTOR_BYTES): number {
  const rule =
    sizeBytes === undefined
      ? "a disk over nothing needs a size"
      : sizeBytes % SECTOR_BYTES !== 0
        ? `a disk's size must be a multiple of ${SECTOR_BYTES} bytes`
        : sizeBytes < leastBytes
          ? `a disk cannot be smaller than what it stands on, which has ${leastBytes} bytes`
          : sizeBytes > MAX_DISK_BYTES
            ? `a disk may have ${MAX_DISK_BYTES} bytes at the most`
            : undefined;
  if (rule !== undefined) throw new DiskError("bad-size", `${rule}; ${sizeBytes ?? "none"} was asked for`);
  return sizeBytes as number;
}

/** What went wrong in making a disk, by the name it has where a full file system was the cause. */
export function asDiskError(error: unknown, directory: string): unknown {
  if (!isNoRoom(error)) return error;
  const message = `the file system of ${directory} is full: make room there`;
  return new DiskError("no-room", message, { cause: error });
}
