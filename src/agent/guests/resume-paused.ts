import { messageOf } from "../../base/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { readTransferRecords } from "../transfers/transfer-record.js";
import type { Guest } from "./guest.js";

/**
 * Lets a guest run on that stands still in its emulator: after a failed exchange whose old emulator could not go on, as one that was found standing still, or one that a disk stopped.
 * @throws AgentError `busy`, `bad-state`, `not-ready`; GuestError, with which it stands still as before.
 */
export async function resumePaused(services: Pick<Services, "paths">, guest: Guest): Promise<void> {
  guest.requireIdle();
  guest.requireState("let run on", "paused");
  const why = whyNotItsOwn(services, guest);
  if (why !== undefined) throw new AgentError("bad-state", `guest ${guest.name} is not to run on: ${why}`);
  const leave = guest.occupy({ what: "being let run on", transfers: [] });
  try {
    await guest.live.emulator.resume();
    await guest.update({ state: "running" });
    guest.log.info("a guest that stood still was let run on");
  } catch (error) {
    guest.log.warn({ problem: messageOf(error) }, "a guest that stands still could not be let run on");
    throw error;
  } finally {
    leave();
  }
}

/** Why a guest that is paused is not one that may just run on; undefined for one that may. */
export function whyNotItsOwn({ paths }: Pick<Services, "paths">, guest: Guest): string | undefined {
  const { outgoing } = guest.record;
  if (outgoing !== undefined)
    return `it was stopped for its migration to ${outgoing.host}, where it may run; ramet rollback ${guest.name} undoes that`;
  const { children } = readTransferRecords(paths.guestMemory(guest.id));
  const held = children.find(({ record }) => record.step !== "running");
  if (held !== undefined)
    return `it is a child that is held; ramet resume ${held.record.transfer} lets it run`;
  const incomplete = children.find(({ record }) => record.complete === undefined);
  return incomplete === undefined ? undefined : "it lacks memory, which will not come any more";
}
