import type { BlockSource } from "./block-source.js";

/** Where a disk under way comes from: what somebody waits for, and the rest. */
export interface FillingSources {
  urgent: BlockSource;
  bulk: BlockSource;
}

/** How far a disk under way is, for people. */
export type FillingState =
  | { phase: "filling" } // it comes, or waits for a source
  | { phase: "full" } // the file system has no room; what guests read is passed on and not kept
  | { phase: "stuck"; code: string; message: string } // its source has given up; another one may be attached
  | { phase: "damaged"; message: string } // what came is not what its digest says; nothing of it is given any more
  | { phase: "whole" }; // all of it is here, checked and safe
