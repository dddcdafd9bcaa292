import { CodedError, codeOf } from "../base/index.js";

/** What can be wrong with a disk or an image. Stable; listed in docs/errors.md. */
export type DiskErrorCode =
  | "no-such-image" // the tenant has no image of that identifier or digest, whoever else may have one
  | "ambiguous" // a digest's first digits fit several of the tenant's images
  | "bad-name" // an identifier, tenant or digest breaks its rule
  | "name-taken" // the tenant has another image of that identifier
  | "no-such-disk" // the host has no differencing disk of that id
  | "has-children" // others stand on the disk
  | "too-deep" // a chain would have more layers than is allowed
  | "bad-size" // a disk's size breaks its rule
  | "bad-record" // a disk's record is not one of this version
  | "bad-image" // a file cannot be read as an image, or is none
  | "refers-outside" // an image needs another file, which nobody named
  | "encrypted" // an image can be read with a secret only
  | "damaged" // what an image holds is not what its digest says
  | "in-use" // a chain uses it
  | "not-shared" // a directory that several hosts were to have is not the same, or not there
  | "bad-socket" // no disk can be given to an emulator there
  | "source-lost" // the host that has a disk does not give it any more
  | "no-room" // a file system is full
  | "not-installed" // qemu-img is missing
  | "tool-failed" // qemu-img refused or ended otherwise than well
  | "timeout" // qemu-img or a disk did not get on
  | "cancelled"; // whoever asked for it has gone, or takes it back

/** What a user, the machine or qemu-img got wrong about a disk. */
export class DiskError extends CodedError<DiskErrorCode> {}

/** Whether a file system had no room for something, or a quota none: what may be tried again. */
export function isNoRoom(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes(codeOf(error));
}
