import type { GuestState } from "../../control/index.js";
import type { Seat } from "../../guest/index.js";
import type { GuestRecord } from "./guest-record.js";

/** What changes in what is known of a guest; what is absent stays. */
export interface GuestChange {
  state?: GuestState;
  message?: string;
  /** Null: it is not being migrated away (any more). */
  outgoing?: NonNullable<GuestRecord["outgoing"]> | null;
  /** A child has all its memory now. */
  complete?: true;
  /** Nothing of it is another guest's any more. */
  whole?: true;
  /** Its disks' chains are others now. */
  disks?: GuestRecord["config"]["disks"];
  /** Another emulator has it now. */
  seat?: Seat;
}

/** A guest's record after a change. */
export function changedRecord(record: Readonly<GuestRecord>, change: GuestChange): GuestRecord {
  const { message: oldMessage, outgoing: oldOutgoing, parent, sharing, config, ...rest } = record;
  // A message explains a state: without a new one, a new state has none.
  const message = change.state === undefined ? (change.message ?? oldMessage) : change.message;
  const outgoing = change.outgoing === undefined ? oldOutgoing : (change.outgoing ?? undefined);
  return {
    ...rest,
    config: change.disks === undefined ? config : { ...config, disks: change.disks },
    ...(change.state === undefined ? {} : { state: change.state }),
    ...(message === undefined ? {} : { message }),
    ...(outgoing === undefined ? {} : { outgoing }),
    ...(change.seat === undefined ? {} : { seat: change.seat }),
    ...(sharing === undefined
      ? {}
      : { sharing: change.whole === true ? { ...sharing, whole: true } : sharing }),
    ...(parent === undefined
      ? {}
      : { parent: change.complete === true ? { ...parent, complete: true } : parent }),
  };
}
