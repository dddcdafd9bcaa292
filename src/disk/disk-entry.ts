import type { DiskRecord } from "./disk-record.js";
import type { HeldImage } from "./images.js";

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
}

/** A disk as the store has it. */
export interface Entry {
  record: DiskRecord;
  /** Its file has yet to come. */
  isAway: boolean;
  /** The base disk directly below, kept from being removed. */
  image: HeldImage | undefined;
}
