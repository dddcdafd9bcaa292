import { CodedError } from "../base/index.js";

/** Codes of everything a fork or migration can fail with that is not Ramet's own mistake. */
export type TransferErrorCode =
  | "cancelled"
  | "child-failed"
  | "link-lost"
  | "peer-protocol"
  | "prepare-failed"
  | "already-switched"
  | "undecided"
  | "parent-failed"
  | "stalled"
  | "rolled-back";

/** A fork or migration could not go on, because of a peer, the network, an emulator or an operator. */
export class TransferError extends CodedError<TransferErrorCode> {}
