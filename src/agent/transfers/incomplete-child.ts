import { messageOf, withDeadline, type Clock } from "../../base/index.js";
import type { TransferKind } from "../../control/index.js";
import type { TransferError } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import type { TransferEntry } from "./transfer-entry.js";
import type { ChildRecord, RecordFile } from "./transfer-record.js";

/** How long after a failure the emulator's end may still become known. */
const END_NOTICE_MS = 1000;

/** How long a child is given to stop while its pages still come. */
const STAND_STILL_MS = 2000;

/** What a child is kept with that ran and cannot be completed. */
interface Kept {
  guest: Guest;
  live: LiveEmulator;
  record: RecordFile<ChildRecord>;
  error: TransferError;
}

/**
 * To be called while a child's pages still come: a processor that waits for one cannot be stopped, and once nothing comes any more that would be waited for in vain. One that is
 * whole by then runs on.
 */
export async function standStill(
  { clock }: Pick<Services, "clock">,
  { guest, live, entry }: { guest: Guest; live: LiveEmulator; entry: TransferEntry },
): Promise<void> {
  const isWhole = (): boolean => entry.phase === "complete";
  if (isWhole()) return;
  const { emulator } = live;
  try {
    await withDeadline(clock, STAND_STILL_MS, "the stop of a child", emulator.stop({ forGood: true }));
  } catch (error) {
    guest.log.debug({ problem: messageOf(error) }, "a child could not be stopped while its pages came");
  }
  if (!isWhole()) return;
  await emulator.resume().catch((error: unknown) => {
    guest.log.error({ problem: messageOf(error) }, "a child that is complete could not be let run on");
  });
}

/** Keeps a child that ran and cannot be completed: what a migrated one did since is nowhere else. False for one of which nothing need be kept, or is left. */
export async function isKept(
  { clock }: Pick<Services, "clock">,
  kind: TransferKind,
  kept: Kept,
): Promise<boolean> {
  if (kind !== "migrate" || !(await livesOn(kept.guest, kept.live, clock))) return false;
  await keepIncomplete(kept);
  return true;
}

/** Whether the emulator still has the guest, which it says. That it has ended may be known a moment later than that its memory is gone. */
async function livesOn(guest: Guest, live: LiveEmulator, clock: Clock): Promise<boolean> {
  const ended = live.exited.then(() => false);
  const answered = live.emulator.status().then((status) => status !== "ended");
  try {
    return await withDeadline(
      clock,
      END_NOTICE_MS,
      "the end of the emulator",
      Promise.any([ended, answered]),
    );
  } catch {
    return guest.hasEmulator;
  }
}

/** Stops a guest whose memory will never be complete, and says so. Whoever touches a missing page waits. */
async function keepIncomplete({ guest, live, record, error }: Kept): Promise<void> {
  try {
    // Before anything is written: its parent may be let run on, and a full file system must not let both run.
    await live.emulator.stop({ forGood: true });
  } catch (cause) {
    // A processor that waits for a page cannot be stopped, but does not run either.
    guest.log.warn({ problem: messageOf(cause) }, "a guest that cannot be completed could not be stopped");
  }
  try {
    record.update({ failed: error.message.slice(0, 400) });
  } catch (cause) {
    // The next agent would find out again, from the parent's host.
    guest.log.warn(
      { problem: messageOf(cause) },
      "that a guest cannot be completed could not be written down",
    );
  }
  await guest.update({
    state: "paused",
    message: `its memory cannot be completed: ${error.message}`.slice(0, 400),
  });
}

/** Ends the emulator of a child that ran: it was a guest its user could see, who is told what became of it. */
export async function endCrashed(guest: Guest, error: TransferError): Promise<void> {
  const live = guest.detachEmulator();
  await live?.end();
  await guest.update({ state: "crashed", message: error.message.slice(0, 400) });
}
