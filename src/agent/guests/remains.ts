import { owesPages, type LeftTransfers } from "../transfers/transfer-record.js";
import type { GuestRecord } from "./guest-record.js";

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
