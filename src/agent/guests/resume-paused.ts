import { readlinkSync } from "node:fs";
import { messageOf } from "../../base/index.js";
import type { Params, Result } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { readTransferRecords } from "../transfers/transfer-record.js";
import type { Guest } from "./guest.js";
import { noteRunsOn } from "./stands-still.js";

/**
 * Lets a guest run on that stands still in its emulator: after a failed exchange whose old emulator could not go on, as one that was found standing still, or one that a disk stopped.
 * @throws AgentError `busy`, `bad-state`, `bad-request`; GuestError, with which it stands still as before.
 */
export async function resumePaused(
  services: Pick<Services, "paths">,
  guest: Guest,
  { emulator: wanted }: Pick<Params<"guest.resume">, "emulator">,
): Promise<Result<"guest.resume">> {
  const isReceived = guest.state === "receiving" && guest.record.standsStill === true;
  // Such a child is its transfer's.
  if (!isReceived) guest.requireIdle();
  if (wanted !== undefined)
    throw new AgentError(
      "bad-request",
      `guest ${guest.name} is paused in the emulator it has: ramet exchange brings it to another one, before or afterwards`,
    );
  if (isReceived) return resumeReceived(guest);
  guest.requireState("let run on", "paused");
  const why = whyNotItsOwn(services, guest);
  if (why !== undefined) throw new AgentError("bad-state", `guest ${guest.name} is not to run on: ${why}`);
  const leave = guest.occupy({ what: "being let run on", transfers: [] });
  try {
    await guest.live.emulator.resume();
    await guest.update({ state: "running" });
    guest.log.info("a guest that stood still was let run on");
    const { version, pid } = guest.live.emulator;
    return { guest: guest.view(), emulator: { version, pid, path: programOf(pid) } };
  } catch (error) {
    guest.log.warn({ problem: messageOf(error) }, "a guest that stands still could not be let run on");
    throw error;
  } finally {
    leave();
  }
}

/** A child that stands still since its exchange failed, and whose transfer goes on all the while. */
async function resumeReceived(guest: Guest): Promise<Result<"guest.resume">> {
  if (guest.isHeld?.() === true)
    throw new AgentError(
      "bad-state",
      `guest ${guest.name} is not to run on now: its transfer keeps it, or an exchange of its emulator is under way (ramet transfers)`,
    );
  const { emulator } = guest.live;
  await emulator.resume();
  // Its last page may have come meanwhile.
  noteRunsOn(guest);
  const { version, pid } = emulator;
  guest.log.info("a child that stood still was let run on");
  return { guest: guest.view(), emulator: { version, pid, path: programOf(pid) } };
}

function programOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return "an emulator that has ended";
  }
}

/** Why a guest that is paused is not one that may just run on; undefined for one that may. */
function whyNotItsOwn({ paths }: Pick<Services, "paths">, guest: Guest): string | undefined {
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
