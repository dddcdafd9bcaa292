import { codeOf, messageOf, type Log } from "../../base/index.js";
import type { AwaitedDisks } from "../disks/awaited-disks.js";
import {
  ChildMachine,
  type FrameLane,
  type PageLane,
  type TransferError,
  type TransferProgress,
} from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import type { FileNotes } from "./child-notes.js";
import { ChildPrecopy } from "./child-precopy.js";
import { Custody } from "./custody.js";
import { dialLane } from "./dial-lane.js";
import { AgentError } from "../errors.js";
import type { HostedChild } from "./hosted-child.js";
import { FIRST_EPOCH } from "./lanes-ahead.js";
import { Lease } from "./lease.js";
import { namingTheEnd } from "./naming-the-end.js";
import { TransferEntry, type TransferCommands } from "./transfer-entry.js";
import { EPOCHS_PER_AGENT, type ChildRecord, type RecordFile } from "./transfer-record.js";

/** A child's entry in the book. */
export function entryOf(
  services: Services,
  guest: Guest,
  { params, startedAtMs }: Readonly<ChildRecord>,
): TransferEntry {
  return new TransferEntry({
    transfer: params.transfer,
    kind: params.kind,
    role: "child",
    guest: guest.name,
    peerGuest: params.parent.guest,
    host: params.parent.host,
    pageCount: params.pageCount,
    startedAtMs,
    clock: services.clock,
  });
}

/** What a user may do to a child's side. */
export function commandsOf(child: Pick<HostedChild, "cancel" | "run">): TransferCommands {
  return {
    cancel: (reason) => child.cancel(reason),
    steer: () => {
      throw new AgentError("bad-request", "memory is sent by the parent's agent: steer the transfer there");
    },
    run: async () => void (await child.run()),
  };
}

/** What counts a child's progress, with that of a pre-copy while there is one. */
export function countsOf(child: {
  machine: ChildMachine;
  entry: TransferEntry;
  disks: AwaitedDisks;
  precopy(): ChildPrecopy | undefined;
}): () => TransferProgress {
  return () => {
    const progress = child.machine.progress();
    child.disks.tellIn(child.entry.facts);
    return child.precopy()?.addTo(progress) ?? progress;
  };
}

/**
 * How a child's page lanes are dialled: only who commands the child may send its memory.
 * The function it returns throws LaneError; `certificate-role` when somebody else answers where the parent's host is said to be.
 */
function dialParent(
  services: Services,
  { params, holder }: Readonly<ChildRecord>,
): (purpose: PageLane | "precopy", epoch: number) => Promise<FrameLane> {
  const { transfer, token, parentUrl } = params;
  return (purpose, epoch) => dialLane(services, { url: parentUrl, holder, purpose, transfer, token, epoch });
}

/** What receives a child's memory; that of an earlier agent goes on where it was. */
export function machineOf(
  services: Services,
  log: Log,
  child: { record: Readonly<ChildRecord>; live: LiveEmulator; notes: FileNotes; onEverything(): void },
): ChildMachine {
  const { record, live, notes, onEverything } = child;
  const { params, holder, incarnation } = record;
  const { transfer, token, parentUrl: url } = params;
  const host = services.configuration.name;
  const thread = services.faults.child({
    transfer,
    share: () => live.memory.fillable().fillShared(),
    digests: notes.digestsPath,
    host,
  });
  const dialBulk = dialParent(services, record);
  const ahead = incarnation === 0 && services.lanesAhead.take({ transfer, token, url, holder });
  return new ChildMachine({
    transfer,
    memory: namingTheEnd(live.memory.fillable(), host),
    faults: thread.faults,
    dial: async (purpose, epoch) => {
      if (ahead && epoch === FIRST_EPOCH) return purpose === "urgent" ? thread.use(ahead.urgent) : ahead.bulk;
      return purpose === "urgent"
        ? thread.dial({ url, holder, purpose, transfer, token, epoch })
        : dialBulk(purpose, epoch);
    },
    clock: services.clock,
    log,
    verify: params.verify,
    notes,
    precopied: params.precopy && incarnation === 0,
    ...(incarnation > 0 ? { recovered: { epoch: incarnation * EPOCHS_PER_AGENT } } : {}),
    onEverything,
  });
}

/** What takes the memory that is copied ahead. */
export function precopyOf(
  services: Services,
  log: Log,
  child: {
    record: Readonly<ChildRecord>;
    live: LiveEmulator;
    notes: FileNotes;
    onFailed(error: TransferError): void;
  },
): ChildPrecopy {
  const { record, live, notes, onFailed } = child;
  const dialled = dialParent(services, record);
  return new ChildPrecopy({
    transfer: record.transfer,
    memory: live.memory.writable(),
    notes,
    verify: record.params.verify,
    dial: (epoch) => dialled("precopy", epoch),
    onFailed,
    clock: services.clock,
    log,
  });
}

/** Who a child belongs to until it runs. */
export function custodyOf(
  services: Services,
  log: Log,
  child: {
    params: Readonly<ChildRecord>["params"];
    isAbandonable(): boolean;
    cancel(reason: string): Promise<void>;
  },
): Custody {
  const { host } = child.params.parent;
  return new Custody({
    clock: services.clock,
    isAbandonable: () => child.isAbandonable(),
    onAbandoned: () => {
      const reason = `the connection to ${host} was lost before the child ran`;
      runAside(log, "abandon", child.cancel(reason));
    },
  });
}

/** A lease on a migrated child's running, in the emulator's terms. */
export function leaseOf(
  services: Services,
  log: Log,
  child: {
    record: RecordFile<ChildRecord>;
    guest: Guest;
    live: LiveEmulator;
    machine: ChildMachine;
    disks: AwaitedDisks;
    letRun(): Promise<void>;
  },
): Lease {
  const { record, guest, live, machine, disks, letRun } = child;
  const { params, heardUs } = record.record;
  const { host } = params.parent;
  return new Lease({
    leaseMs: params.leaseMs ?? services.configuration.limits.migrationLeaseSeconds * 1000,
    ...(heardUs === undefined ? {} : { heardUs }),
    note: (nowUs) => {
      try {
        record.update({ heardUs: nowUs });
      } catch (error) {
        log.warn({ problem: messageOf(error) }, "it could not be noted that the parent's host is there");
      }
    },
    // Of a child that has all its memory nobody's lanes are there any more: it is asked for.
    isLinked: () => (machine.phase.phase === "complete" ? disks.isParentThere : machine.progress().linked),
    stop: async (outOfReachMs) => {
      const seconds = Math.round(outOfReachMs / 1000);
      log.warn(
        { host, seconds },
        "the parent's host is out of reach; the child stands still until it is back",
      );
      guest.note({
        state: "receiving",
        message: `stands still until ${host} is back, which is out of reach`,
      });
      await live.emulator.stop({ forGood: true });
    },
    resume: async () => {
      log.info({ host }, "the parent's host is back; the child goes on");
      await letRun();
      if (guest.state === "receiving") guest.note({ state: "receiving" });
    },
    clock: services.clock,
    log,
  });
}

/** Goes on with a child's run or end for which nobody waits. */
export function runAside(log: Log, what: string, work: Promise<void>): void {
  const message = "a child could not be let run, or not be ended in full";
  work.catch((error: unknown) =>
    log.error({ what, code: codeOf(error), problem: messageOf(error) }, message),
  );
}
