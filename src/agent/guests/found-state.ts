import { messageOf } from "../../base/index.js";
import type { GuestState } from "../../control/index.js";
import type { Guest } from "./guest.js";
import type { LiveEmulator } from "./live-emulator.js";

/** What the end of the old agent means for a child whose pages it had yet to receive. */
export const INTERRUPTED =
  "the agent was restarted before its memory was complete: it waits for pages that will not come; remove it";

/** How the message of a guest begins whose emulator does not answer. */
export const SILENT = "its emulator does not answer";

/** The message of a guest whose emulator does not answer. */
export function silent(error: unknown): string {
  return `${SILENT} (${messageOf(error)}); kill ends it`.slice(0, 500);
}

/** The state of a guest that was found running. Errors as `Emulator.status`. */
export async function liveState(guest: Guest, live: LiveEmulator): Promise<GuestState> {
  if (guest.state === "receiving" || guest.state === "frozen") return guest.state;
  return (await live.emulator.status()) === "running" ? "running" : "paused";
}
