import { messageOf, withDeadline, type Clock } from "../../base/index.js";
import type { TransferError } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";

/** How long after a failure the emulator's end may still become known. */
const END_NOTICE_MS = 1000;

/** Whether the emulator still has the guest. That it has ended may be known a moment later than that its memory is gone. */
export async function livesOn(guest: Guest, live: LiveEmulator, clock: Clock): Promise<boolean> {
  try {
    await withDeadline(clock, END_NOTICE_MS, "the end of the emulator", live.exited);
    return false;
  } catch {
    return guest.hasEmulator;
  }
}

/** Stops a guest whose memory will never be complete, and says so. Whoever touches a missing page waits. */
export async function keepIncomplete(guest: Guest, live: LiveEmulator, error: TransferError): Promise<void> {
  await guest.update({
    state: "paused",
    message: `its memory cannot be completed: ${error.message}`.slice(0, 400),
  });
  try {
    await live.emulator.stop({ forGood: true });
  } catch (cause) {
    // A processor that waits for a page cannot be stopped, but does not run either.
    guest.log.warn({ problem: messageOf(cause) }, "a guest that cannot be completed could not be stopped");
  }
}
