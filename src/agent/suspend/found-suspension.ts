import { readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../../base/index.js";
import type { Admission } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import type { EmulatorSource } from "../guests/launcher.js";
import { isOver } from "../guests/remains.js";
import { connectOrGoWithout } from "../network/guest-link.js";
import { UNFINISHED_SUFFIX } from "../store/files.js";
import { removeGuestMemory } from "../store/guest-memory.js";
import type { Paths } from "../store/paths.js";
import { goneMessage } from "./resume-guest.js";
import { SuspensionFiles, type SuspensionRecord } from "./suspension-record.js";

interface Parts {
  paths: Paths;
  source: EmulatorSource;
  admission: Admission;
}

/**
 * Takes up a guest that an earlier agent left suspended: what emulator there is has stopped it for good, or loaded it and never run it.
 * @returns false when it is not suspended: `settleSuspension` it once its emulator answers.
 * @throws AgentError `bad-record`, GuestError when its emulator cannot be ended.
 */
export async function takeUpSuspended(
  { paths, source, admission }: Parts,
  guest: Guest,
): Promise<{ isSuspended: boolean; left?: SuspensionRecord | undefined }> {
  const { id, name, config } = guest;
  removeUnfinished(paths, id);
  const files = new SuspensionFiles(paths, id);
  const left = files.read();
  if (isOver(guest.state)) {
    // It was given up, and its memory with it.
    if (left?.step === "saved") await removeGuestMemory(paths, id);
    return { isSuspended: false };
  }
  const hasMemory = statSync(paths.ram(id), { throwIfNoEntry: false }) !== undefined;
  if (left?.step === "saved" && hasMemory) {
    await source.endLeftover(id);
    const { emulatorVersion, stoppedAtMs } = left;
    guest.suspended = {
      reservation: admission.adopt(config.memoryBytes),
      emulatorVersion,
      stoppedAtMs,
      stateBytes: files.stateBytes,
      ramPath: paths.ram(id),
    };
    if (guest.state !== "suspended" || guest.record.message !== undefined)
      await guest.update({ state: "suspended" });
    guest.log.info({ ...left }, "a suspended guest was found");
    return { isSuspended: true };
  }
  const isGone = guest.state === "suspended" && (left === undefined || left.step === "saved");
  if (!isGone) return { isSuspended: false, left };
  const why = hasMemory ? "there is no record of it there" : "there is no memory there";
  guest.log.warn({ why }, "a guest is suspended, and its memory is not there");
  await guest.update({
    state: "suspended",
    message: goneMessage(name, paths.guestMemory(id), why).slice(0, 500),
  });
  return { isSuspended: true };
}

/**
 * Brings to its end what an earlier agent left between an emulator and none: the guest's emulator has it, and lets it run on.
 * Errors as those of `Emulator`; may be done twice.
 */
export async function settleSuspension(
  guest: Guest,
  { step }: SuspensionRecord,
  paths: Paths,
): Promise<void> {
  const { live } = guest;
  const isToRun = guest.state === "running" || guest.state === "suspended";
  // First of all: what runs must not be taken for suspended.
  if (step === "saving") await new SuspensionFiles(paths, guest.id).remove();
  if (isToRun && (await live.emulator.status()) === "paused") await live.emulator.resume();
  const problem = step === "told" ? await connectOrGoWithout(live.emulator, guest.config.network) : undefined;
  await guest.update({
    seat: live.seat,
    state: isToRun ? "running" : guest.state,
    ...(problem === undefined ? {} : { message: problem }),
  });
  await new SuspensionFiles(paths, guest.id).remove();
  guest.log.warn({ step }, "what an earlier agent left of suspending or resuming was settled");
}

/**
 * Gives up what a suspended guest has of the host: it has ended, as if its power was cut. Whatever cannot be written keeps nobody from that.
 * @throws the file system's error when its memory cannot be removed.
 */
export async function giveUpSuspended(
  { paths, source }: Omit<Parts, "admission">,
  guest: Guest,
): Promise<void> {
  try {
    await guest.update({ state: "stopped", message: "it was suspended, and its memory was given up" });
  } catch (error) {
    guest.log.warn({ problem: messageOf(error) }, "it could not be noted that a suspended guest was ended");
  }
  await source.endLeftover(guest.id);
  await removeGuestMemory(paths, guest.id);
  releaseSuspended(guest);
}

/** The room of its memory is free. */
export function releaseSuspended(guest: Guest): void {
  guest.suspended?.reservation.release();
  guest.suspended = undefined;
}

/** What was being written when the agent ended. */
function removeUnfinished(paths: Paths, id: string): void {
  const directory = paths.guestMemory(id);
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return;
  for (const name of readdirSync(directory))
    if (name.startsWith("suspended.") && name.endsWith(UNFINISHED_SUFFIX)) rmSync(join(directory, name));
}
