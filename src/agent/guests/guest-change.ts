import type { GuestState } from "../../control/index.js";
import type { Seat } from "../../guest/index.js";
import type { GuestRecord } from "./guest-record.js";

/** What changes in what is known of a guest; what is absent stays. */
export interface GuestChange {
  state?: GuestState;
  message?: string;
  /** It is received, and stands still until it is let run on; until another state is noted. */
  standsStill?: true;
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
  /** It is called something else now, and has another place in the network. */
  role?: Pick<GuestRecord["config"], "name" | "network"> & Pick<GuestRecord, "attached">;
  /** The guest it was forked from is called this now. */
  parentName?: string;
}

/** A guest's record after a change. */
export function changedRecord(record: Readonly<GuestRecord>, change: GuestChange): GuestRecord {
  const { message: oldMessage, standsStill: stoodStill, ...others } = record;
  const { outgoing: oldOutgoing, parent, sharing, config, ...rest } = others;
  // These explain a state: without new ones, a new state has none.
  const isSame = change.state === undefined;
  const message = isSame ? (change.message ?? oldMessage) : change.message;
  const standsStill = isSame ? (change.standsStill ?? stoodStill) : change.standsStill;
  const outgoing = change.outgoing === undefined ? oldOutgoing : (change.outgoing ?? undefined);
  return {
    ...rest,
    ...changedConfig(record, change),
    ...(change.state === undefined ? {} : { state: change.state }),
    ...(message === undefined ? {} : { message }),
    ...(standsStill === undefined ? {} : { standsStill }),
    ...(outgoing === undefined ? {} : { outgoing }),
    ...(change.seat === undefined ? {} : { seat: change.seat }),
    ...(sharing === undefined
      ? {}
      : { sharing: change.whole === true ? { ...sharing, whole: true } : sharing }),
    ...(parent === undefined ? {} : { parent: changedParent(parent, change) }),
  };
}

function changedConfig(
  { config, attached }: Readonly<GuestRecord>,
  { disks, role }: GuestChange,
): Pick<GuestRecord, "config" | "attached"> {
  const { name, network } = role ?? config;
  return {
    config: { ...config, name, network, ...(disks === undefined ? {} : { disks }) },
    attached: role?.attached ?? attached,
  };
}

type Parent = NonNullable<GuestRecord["parent"]>;

function changedParent(parent: Parent, { complete, parentName }: GuestChange): Parent {
  return {
    ...parent,
    guest: parentName ?? parent.guest,
    ...(complete === true ? { complete } : {}),
  };
}
