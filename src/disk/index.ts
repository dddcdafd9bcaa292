export { cutExtents, type BlockExtent, type BlockSource } from "./block-source.js";
export {
  chunkCount,
  chunkDigest,
  chunkLength,
  ContentBuilder,
  digestFile,
  rootDigest,
  type Content,
  type OnProgress,
} from "./content-digest.js";
export { markShared, requireShared, sharedDisks, type SharedMark } from "./shared-files.js";
export { DiskDirectories } from "./disk-directories.js";
export { tenantOfDisk, type DiskArrival, type DiskLoan, type DiskParent } from "./disk-record.js";
export type { ChainLayer, Disk, DiskStoreOptions } from "./disk-entry.js";
export { DiskStore } from "./disk-store.js";
export { emptyQcow2, type Backing } from "./empty-qcow2.js";
export { DiskError, type DiskErrorCode } from "./errors.js";
export type { Extent, FindData } from "./holes.js";
export { ImageLibraries, type LibraryImage } from "./image-libraries.js";
export { ImageStore, type ImageStoreOptions } from "./image-store.js";
export type { PruneOptions } from "./image-pruning.js";
export type {
  HeldImage,
  HoldOptions,
  Images,
  ImageView,
  ImportOptions,
  ImportProgress,
  StoredImage,
  UnfinishedImage,
} from "./images.js";
export { passedPath, QemuImg, type QemuImgAnswer, type QemuImgRun } from "./qemu-img.js";
export type { HostMark } from "./use-marks.js";
export { CHUNK_BYTES, CHUNK_DIGEST_BYTES, MAX_CHAIN_DISKS, MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";
export { NbdServer, type NbdServerOptions } from "./nbd-server.js";
export { FillingDisk, type FillingDiskOptions } from "./filling-disk.js";
export type { FillingSources, FillingState } from "./filling-state.js";
export { FILLING_RECORD, FillingNotes } from "./filling-notes.js";
export { FileSource } from "./file-source.js";
export { FillingImage, type FillingImageOptions, type WantedImage } from "./filling-image.js";
