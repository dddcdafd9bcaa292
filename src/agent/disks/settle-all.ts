import type { Services } from "../services.js";
import { isStoppedByDisk } from "./disk-trouble.js";
import { settleDisks } from "./fork-disks.js";

/** Lets go of base disks that an earlier agent's chains used and no chain does now. A disk that cannot be read has a base disk all the same. */
export async function settleImages({ disks, images }: Pick<Services, "disks" | "images">): Promise<void> {
  if (!disks.store.hasUnreadable) await images.settle();
}

/**
 * Has every guest with disks that was found running asked what it writes, as soon as its emulator answers: the agent before this one may have ended in the middle of a fork. A guest
 * that stands still though it is to run goes on: its disks and memory are of one instant in the emulator, whatever that was for.
 */
export async function settleAllDisks(
  services: Pick<Services, "disks" | "registry" | "chains" | "paths" | "clock">,
): Promise<void> {
  for (const guest of services.registry.list()) {
    if (guest.config.disks.length === 0) continue;
    const settleChain = services.chains.takeUp(services, guest);
    if (!guest.hasEmulator) {
      await settleChain?.();
      continue;
    }
    // It may never answer, and end.
    if (settleChain !== undefined) guest.onExit(settleChain);
    services.registry.whenAnswering(guest, async () => {
      await settleChain?.();
      if (guest.state === "receiving") return;
      await settleDisks(services, guest);
      const isToRun = guest.state === "running" || isStoppedByDisk(guest);
      if (!isToRun || (await guest.live.emulator.status()) !== "paused") return;
      // Where the file system of the records is full, it goes on, or says itself that its disk has no room.
      guest.note({ state: "running" });
      await guest.live.emulator.resume();
    });
  }
}
