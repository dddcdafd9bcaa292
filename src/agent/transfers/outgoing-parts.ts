import { CodedError, type Log } from "../../base/index.js";
import type { ParamsInput } from "../../control/index.js";
import { ParentSession, PrecopySource, type Instant, type WorkingSet } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { NetworkForPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import type { ChildNames } from "./child-names.js";
import { isTrusted } from "./compression.js";
import type { SpareTransfer } from "./spare-lanes.js";
import { TransferEntry } from "./transfer-entry.js";
import { compressionOf, flowOf, type ParentRecord, type RecordFile } from "./transfer-record.js";

export interface OutgoingChildOptions {
  services: Services;
  guest: Guest;
  instant: Instant;
  record: RecordFile<ParentRecord>;
  /** What the guest's children touch first; used where the record says so. */
  workingSet?: WorkingSet;
  /** What its host needs to make it; absent for the child of an earlier agent. */
  making?: {
    names: ChildNames;
    network: NetworkForPeer;
    precopy?: boolean;
    writes?: ParamsInput<"peer.prepare">["writes"];
  };
  /** The lanes that wait for it, where the transfer was a spare one. */
  spare?: SpareTransfer | undefined;
  /** Cancels the whole fork or migration while it has no child that runs. */
  abort: (reason: string) => void;
}

/** What clients see of the transfer. */
export function entryOf(options: OutgoingChildOptions): TransferEntry {
  const { services, guest, instant } = options;
  const { transfer, kind, peerGuest, host, startedAtMs } = options.record.record;
  return new TransferEntry({
    transfer,
    kind,
    role: "parent",
    guest: guest.name,
    peerGuest,
    host,
    pageCount: instant.pageCount,
    startedAtMs,
    clock: services.clock,
  });
}

/** A descriptor of a guest's memory file, which whoever is given it closes; undefined when there is no such file, or no emulator on it. */
export function shareFile(guest: Guest): number | undefined {
  if (!guest.hasEmulator || guest.live.exit !== undefined) return undefined;
  try {
    return guest.live.memory.shareFile();
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    guest.log.warn({ problem: error.message }, "pages are answered by the agent's own thread");
    return undefined;
  }
}

/** What gives the child its pages as they were at the instant. */
export function sessionOf(options: OutgoingChildOptions, log: Log): ParentSession {
  const { services, instant } = options;
  const { record } = options.record;
  return new ParentSession({
    transfer: record.transfer,
    instant,
    clock: services.clock,
    log,
    compress: {
      ...compressionOf(record),
      learned: isTrusted(record.url, record.compress, services.peers.compression),
    },
    // Until the child runs, nothing may stand in the way of the pages its loading waits for.
    sweep: false,
    ...aheadOf(options),
    ...flowOf(record),
    ...(record.linkDeadlineMs === undefined ? {} : { linkDeadlineMs: record.linkDeadlineMs }),
    // A parent that runs on writes what nobody is owed: no later agent may take that for what the child lacks.
    onFailing: () => void (record.kind === "fork" && options.record.remove()),
  });
}

/** What copies memory ahead, where that is wanted. */
export function precopyOf(options: OutgoingChildOptions, log: Log): PrecopySource | undefined {
  const { services, guest, making } = options;
  const { record } = options.record;
  if (making?.precopy !== true) return undefined;
  return new PrecopySource({
    transfer: record.transfer,
    memory: guest.live.shared,
    clock: services.clock,
    log,
    compress: compressionOf(record),
    ...flowOf(record),
  });
}

/** What goes ahead of the sweep, and is learnt from a fork's child. That of an earlier agent was begun when its record says, by the wall clock. */
function aheadOf({ services, workingSet, record, making }: OutgoingChildOptions) {
  const { kind, workingSet: wanted, startedAtMs } = record.record;
  if (workingSet === undefined || wanted !== true) return {};
  const learns = kind === "fork";
  if (making !== undefined) return { ahead: workingSet.forChild({ learns }) };
  const begunAgoUs = (services.clock.wallMs() - startedAtMs) * 1000;
  return { ahead: workingSet.forChild({ learns, begunAgoUs }) };
}
