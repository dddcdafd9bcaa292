import type { Clock, Log } from "../base/index.js";
import type { FlowOptions } from "./bulk-flow.js";
import type { TransferError } from "./errors.js";
import type { Instant } from "./instant.js";
import type { SweepOrder } from "./sweep-order.js";
import type { PagesAhead } from "./working-set.js";

/** Where a session stands. `linked` says that both page lanes of one epoch are there. */
export type SessionPhase =
  | { phase: "waiting-for-child" }
  | { phase: "linked" }
  | { phase: "complete" }
  | { phase: "failed"; error: TransferError };

export interface ParentSessionOptions extends FlowOptions {
  transfer: number;
  instant: Instant;
  clock: Clock;
  log: Log;
  /** False holds the sweep: then only faults and pushes move pages. */
  sweep: boolean;
  /** How long the child may be out of reach before it is given up, in ms; undefined for ever. */
  linkDeadlineMs?: number;
  order?: SweepOrder;
  /** What goes ahead of the sweep, held or not. */
  ahead?: PagesAhead;
  /** Called once when the session fails, before anything the child is owed is let go of and may change. */
  onFailing?: () => void;
}
