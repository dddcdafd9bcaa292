import { messageOf } from "../../base/index.js";
import type { Guest } from "./guest.js";
import type { LiveEmulator } from "./live-emulator.js";

const MAX_MESSAGE_CHARACTERS = 500;

/**
 * Notes that a guest stands still in its emulator, which could not be told to run on, until its user lets it. A child whose memory is received stays one; what is shown of it is `paused` all the same.
 * An emulator that only was slow does in the end what it was told, and says so (QEMU's RESUME event): the guest runs then.
 * @param since as in "it stands still since …".
 */
export function noteStandsStill(guest: Guest, live: LiveEmulator, since: string, error: unknown): void {
  const text = `it stands still since ${since}; ramet resume ${guest.name} lets it run on: ${messageOf(error)}`;
  const message = text.slice(0, MAX_MESSAGE_CHARACTERS);
  guest.note(guest.state === "receiving" ? { standsStill: true, message } : { state: "paused", message });
  live.emulator.onGuestEvent(({ name }) => {
    if (name !== "RESUME" || guest.record.message !== message) return;
    noteRunsOn(guest);
    // Said again it changes nothing, and what was left of its saving goes.
    live.emulator.resume().catch(() => {});
  });
}

/** A guest that stood still runs on. */
export function noteRunsOn(guest: Guest): void {
  guest.note({ state: guest.state === "receiving" ? "receiving" : "running" });
}

/** All memory of a child is here: it runs, or stands still as before. */
export function noteReceived(guest: Guest, { runs }: { runs: boolean }): void {
  const { standsStill, message } = guest.record;
  const why = standsStill === true && message !== undefined ? { message } : undefined;
  guest.note({ state: runs && why === undefined ? "running" : "paused", ...why, complete: true });
}

/** A child was let run by its transfer. */
export function noteRuns(guest: Guest, { isComplete }: { isComplete: boolean }): void {
  if (isComplete) guest.note({ state: "running" });
  else if (guest.record.standsStill === true) noteRunsOn(guest);
}
