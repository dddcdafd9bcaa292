import type { Clock } from "../base/index.js";
import type { Emulator, Snapshot } from "./emulator.js";
import { pauseDeadlineMs, withinPause, type InPause } from "./held-save.js";

/** A snapshot by a command for each step, where the saving cannot be held up. Errors as those of the steps. */
export async function snapshotInSteps(
  emulator: Pick<Emulator, "stop" | "saveDeviceState" | "resume">,
  work: InPause,
): Promise<Snapshot> {
  const { stoppedAtUs } = await emulator.stop();
  // The emulator saves on one processor while this one does what is to be done.
  const saving = emulator.saveDeviceState({ handOver: false });
  // Should that fail first, because the emulator has ended, nobody waits for the saving any more.
  saving.catch(() => {});
  work.onStopped();
  const saved = await saving;
  await work.atInstant();
  return { ...saved, stoppedAtUs, ...(await emulator.resume()) };
}

/** The same, where the guest is held no longer than it may be. @throws GuestError `timeout` when the work takes longer. */
export function snapshotInTime(
  emulator: Pick<Emulator, "config" | "stop" | "saveDeviceState" | "resume">,
  work: InPause,
  clock: Clock,
): Promise<Snapshot> {
  const pauseMs = pauseDeadlineMs(emulator.config.memoryBytes);
  return snapshotInSteps(emulator, {
    onStopped: () => work.onStopped(),
    atInstant: () => withinPause(clock, pauseMs, work.atInstant()),
  });
}
