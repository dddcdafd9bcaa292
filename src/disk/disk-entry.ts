import type { Clock, Log } from "../base/index.js";
import type { DiskArrival, DiskParent, DiskRecord } from "./disk-record.js";
import type { HeldImage, Images } from "./images.js";

/** A disk as it is kept. */
export type Disk = Readonly<DiskRecord>;

/** One layer of a chain, as an emulator opens it. */
export interface ChainLayer {
  /** A uuid, or a base disk's digest. */
  id: string;
  format: "raw" | "qcow2";
  path: string;
  /** While its file is on its way: where that is read, and where a base disk's lies. */
  socket?: string;
  filling?: string;
  /** Its file lies in a directory that several hosts have, and is yet to be brought to this one's own. */
  shared?: true;
}

/** An empty disk that is to be made. */
export interface NewDisk {
  parent?: DiskParent;
  /** That of what is below, when it is absent; it may be larger, not smaller. */
  sizeBytes?: number;
  writer: string;
  /** Whose guest that is, without it that of the tenant `default`; disks below are that tenant's, too. */
  tenant?: string;
  /** Where hosts share it: its file lies there until it is brought home (`SharedDisks`). */
  sharedAt?: string;
}

/** A frozen disk of another host whose file is to come. */
export interface ExpectedDisk
  extends Pick<NewDisk, "parent" | "tenant">, Pick<DiskRecord, "id" | "sizeBytes"> {
  arriving: DiskArrival;
}

/** A disk as the store has it. */
export interface Entry {
  record: DiskRecord;
  /** Its file has yet to come. */
  isAway: boolean;
  /** Its file lies where its record says that hosts share it. */
  isShared?: boolean;
  /** The base disk directly below, kept from being removed. */
  image: HeldImage | undefined;
}

export interface DiskStoreOptions {
  directory: string;
  images: Pick<Images, "hold">;
  clock: Clock;
  log: Log;
}
