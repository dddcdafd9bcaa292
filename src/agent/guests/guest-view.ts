import { statSync } from "node:fs";
import type { GuestState, GuestView } from "../../control/index.js";
import { guestDiskView } from "../disks/guest-disks.js";
import { networkView } from "../network/translate.js";
import type { Reservation } from "./admission.js";
import type { GuestRecord } from "./guest-record.js";
import type { LiveEmulator } from "./live-emulator.js";

/** Bytes that `stat` counts by. */
const BLOCK_BYTES = 512;

/** What a guest without an emulator has of its host while it is suspended. */
export interface Suspended {
  /** The room of its memory. */
  reservation: Reservation;
  stoppedAtMs: number;
  /** The emulator that saved it. */
  emulatorVersion: string;
  stateBytes: number;
  ramPath: string;
}

/** A guest as a client sees it. */
export function viewOf(
  record: Readonly<GuestRecord>,
  now: {
    state: GuestState;
    live: LiveEmulator | undefined;
    suspended: Suspended | undefined;
    transfers: readonly number[];
  },
): GuestView {
  const { config, parent, message, createdAtMs, boot } = record;
  const { live, suspended } = now;
  return {
    id: config.id,
    name: config.name,
    state: now.state === "receiving" && record.standsStill === true ? "paused" : now.state,
    architecture: config.architecture,
    machine: config.machine,
    memoryBytes: config.memoryBytes,
    cpus: config.cpus,
    ...(boot.kernel === undefined ? {} : { kernel: boot.kernel.source }),
    ...(boot.initrd === undefined ? {} : { initrd: boot.initrd.source }),
    append: config.append,
    ...(live === undefined
      ? {}
      : { emulatorVersion: live.emulator.version, pid: live.emulator.pid, ...isolationField(live) }),
    network: networkView(config.network),
    ...(config.disks.length === 0 ? {} : { disks: config.disks.map(guestDiskView) }),
    ...(parent === undefined ? {} : { parent }),
    ...sharingFields(record, live),
    ...(suspended === undefined || live !== undefined ? {} : { suspended: suspendedView(suspended) }),
    transfers: [...now.transfers],
    createdAtMs,
    ...(message === undefined ? {} : { message }),
  };
}

function suspendedView(suspended: Suspended): NonNullable<GuestView["suspended"]> {
  const { stoppedAtMs, emulatorVersion, stateBytes, ramPath } = suspended;
  const allocatedBytes = (statSync(ramPath, { throwIfNoEntry: false })?.blocks ?? 0) * BLOCK_BYTES;
  return { stoppedAtMs, emulatorVersion, stateBytes, allocatedBytes };
}

function sharingFields(
  { sharing, parent }: Readonly<GuestRecord>,
  live: LiveEmulator | undefined,
): Pick<GuestView, "sharesWith" | "sharers"> {
  const sharers = live?.shared.sharers ?? 0;
  const shares = live !== undefined && sharing !== undefined && sharing.whole !== true;
  return {
    ...(shares && parent !== undefined ? { sharesWith: parent.guest } : {}),
    ...(sharers > 0 ? { sharers } : {}),
  };
}

/** `exactOptionalPropertyTypes` tells a field that is absent from one that is undefined. */
function isolationField({ isolation }: LiveEmulator): Pick<GuestView, "isolation"> {
  return isolation === undefined ? {} : { isolation };
}
