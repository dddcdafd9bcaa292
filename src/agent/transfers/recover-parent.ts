import { rmSync } from "node:fs";
import { messageOf } from "../../base/index.js";
import { TransferError, type Instant } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import { connectOrGoWithout } from "../network/guest-link.js";
import type { Services } from "../services.js";
import { isOver } from "../guests/remains.js";
import { EndedParent } from "./ended-parent.js";
import { finishFork } from "./fork-guest.js";
import { MigrationEnd } from "./migration-end.js";
import { OutgoingChild } from "./outgoing-child.js";
import { detachParent, ParentKeep, recoverInstant } from "./parent-keep.js";
import { owesPages, removeDigests, type ParentRecord, type RecordFile } from "./transfer-record.js";

/** So soon after its start a new agent asks what became of a migration's child that may run. */
const FIRST_ASK_MS = 100;

type ParentRecords = readonly RecordFile<ParentRecord>[];

/**
 * Goes on, on the parent's side, with the fork or migration of an agent that has ended. Its memory is served before the emulator is spoken to, which may
 * wait for a page.
 * @returns what is to be done once the emulator answers.
 */
export function recoverParent(services: Services, guest: Guest, records: ParentRecords): () => Promise<void> {
  const told = records.filter(({ record }) => owesPages(record));
  for (const file of records.filter(({ record }) => record.step === "preparing"))
    cancelUntold(services, guest, file);
  for (const file of records.filter(({ record }) => record.step === "complete")) {
    if (file.record.kind === "migrate") return () => services.registry.remove(guest);
    file.remove();
  }
  const [first] = told;
  if (first === undefined) return runOnAfter(services, guest, records);
  const keep = ParentKeep.open(services, guest, told);
  const isMigration = first.record.kind === "migrate";
  const ended = guest.hasEmulator ? undefined : EndedParent.open(services, guest);
  const instant = goOnFrom(services, guest, { keep, isMigration, ended });
  const children = told.map(
    (record) =>
      new OutgoingChild({
        services,
        guest,
        instant,
        record,
        workingSet: keep.workingSet.set,
        abort: () => {},
      }),
  );
  const hosts = [...new Set(children.map(({ target }) => target.host))].join(", ");
  const transfers = children.map(({ entry }) => entry.transfer);
  const what = `${isMigration ? "a migration" : "a fork"} to ${hosts} (transfers ${transfers.join(", ")})`;
  const vacate =
    ended === undefined ? guest.occupyMemory({ what, transfers }) : guest.occupy({ what, transfers });
  const forget = services.book.onDetach(() => {
    detachParent({ children, instant, keep });
    ended?.leave();
  });
  const leave = (): void => {
    forget();
    vacate();
    keep.remove();
    ended?.remove();
  };
  guest.log.info({ transfers, ended: ended !== undefined }, "transfers of an earlier agent go on");
  const digests = keep.digests();
  for (const child of children) {
    child.goOn({ digests, decided: !isMigration || child.record.step === "paging" });
  }
  const [child] = children;
  if (!isMigration || child === undefined) {
    void finishFork(guest, children, leave);
    return () => resumeIfPaused(guest);
  }
  endMigration(services, guest, { child, vacate, leave });
  return async () => {};
}

/** The memory as it was at the instant: what earlier agents held up of it, or what an emulator that has ended left of it. */
function goOnFrom(
  services: Services,
  guest: Guest,
  parts: { keep: ParentKeep; isMigration: boolean; ended: EndedParent | undefined },
): Instant {
  const { keep, isMigration, ended } = parts;
  const { copies } = keep;
  if (ended !== undefined)
    return recoverInstant(services, guest, { copies, tracking: false, memory: ended.region });
  // A guest that is stopped for good writes nothing; what is protected yet was being copied ahead.
  if (isMigration) letWritersGo(guest);
  return recoverInstant(services, guest, { copies, tracking: !isMigration && guest.state !== "frozen" });
}

/** Brings a migration to its end whose child runs, or may run. */
function endMigration(
  services: Services,
  guest: Guest,
  parts: { child: OutgoingChild; vacate: () => void; leave: () => void },
): void {
  const { child } = parts;
  const end = new MigrationEnd({ services, guest, ...parts });
  if (child.record.step === "paging") {
    if (guest.hasEmulator) end.toMigrated();
    void end.finish();
    return;
  }
  const message = `the agent was restarted just when the guest was to run on ${child.target.host}, which is asked whether it does`;
  const { state, message: found } = guest.record;
  void end.decide(new TransferError("undecided", message), FIRST_ASK_MS).then(() => {
    // Whatever became of its child, a guest without an emulator is what it was found to be.
    if (isOver(state)) guest.note({ state, ...(found === undefined ? {} : { message: found }) });
  });
}

/** Its child never ran and never will: its host would remove it by itself, and is told so that it does at once. */
function cancelUntold(services: Services, guest: Guest, file: RecordFile<ParentRecord>): void {
  const { transfer, url } = file.record;
  const reason = "the parent's agent was restarted before the child was to run";
  const cancel = async (): Promise<void> => {
    const client = await services.peers.connect(url);
    await client.call("peer.cancel", { transfer, reason }, { deadlineMs: 10_000 });
  };
  cancel().catch((error: unknown) => {
    guest.log.debug({ transfer, problem: messageOf(error) }, "a child that never ran was not cancelled");
  });
  file.remove();
}

/** A parent whose transfer had not come to its instant: nothing holds up its writers any more, and it runs on as if nothing had happened. */
function runOnAfter(services: Services, guest: Guest, records: ParentRecords): () => Promise<void> {
  const { paths } = services;
  letWritersGo(guest);
  rmSync(paths.copies(guest.id), { force: true });
  removeDigests(paths.guestMemory(guest.id));
  const migrated = records.some(({ record }) => record.kind === "migrate");
  return async () => {
    // It may have left its place in the network, or part of it.
    if (migrated && (await guest.live.emulator.status()) === "paused") {
      await connectOrGoWithout(guest.live.emulator, guest.config.network);
    }
    await resumeIfPaused(guest);
    if (migrated) await guest.update({ outgoing: null });
  };
}

function letWritersGo({ live: { memory, shared } }: Guest): void {
  if (memory.registration() !== "write-protect") return;
  shared.track(() => {});
  shared.release();
}

async function resumeIfPaused(guest: Guest): Promise<void> {
  if (guest.state !== "running" || (await guest.live.emulator.status()) !== "paused") return;
  await guest.live.emulator.resume();
  guest.log.info("a guest that an ended agent had left in a pause runs on");
}
