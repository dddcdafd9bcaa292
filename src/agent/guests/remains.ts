import { mayHaveRun, owesPages, type LeftTransfers } from "../transfers/transfer-record.js";
import type { Clock } from "../../base/index.js";
import type { FormerChildren } from "../store/former-children.js";
import type { Paths } from "../store/paths.js";
import { formerChildOf, type GuestRecord } from "./guest-record.js";

/** Whether its emulator has ended, as its record says. */
export function isOver(state: GuestRecord["state"]): state is "stopped" | "crashed" {
  return state === "stopped" || state === "crashed";
}

/** What a guest without an emulator leaves behind: what its children lack of its memory, only what is known of it, or nothing at all. */
export type Remains = "pages" | "its record" | "nothing";

/** What remains of a guest that a new agent finds without its emulator, by the records of its transfers. */
export function remainsOf({ parents, children }: LeftTransfers): Remains {
  if (parents.some(({ record }) => owesPages(record))) return "pages";
  // It is elsewhere, and nobody needs what was here.
  if (parents.some(({ record }) => record.kind === "migrate" && record.step === "complete")) return "nothing";
  const neverRan = children.some(({ record }) => record.step !== "running" && record.complete === undefined);
  // It never was a guest, as when the agent ended in the middle of giving it its device state.
  return neverRan ? "nothing" : "its record";
}

/**
 * Notes of a guest that is about to be removed that it came here by a migration and ran: its parent's agent may ask late.
 * @param ran whether it may have run, where that is known better than by its records.
 * @throws AgentError `no-room` or the file system's error.
 */
export async function rememberRun(
  { paths, clock, formerChildren }: { paths: Paths; clock: Clock; formerChildren: FormerChildren },
  record: Readonly<GuestRecord>,
  ran?: boolean,
): Promise<void> {
  const child = formerChildOf(record);
  if (child !== undefined && (ran ?? mayHaveRun(paths.guestMemory(record.config.id), child.transfer)))
    await formerChildren.add({ ...child, leftAtMs: clock.wallMs() });
}
