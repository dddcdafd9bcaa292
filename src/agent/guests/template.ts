import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { codeOf } from "../../base/index.js";
import type { ParentEmulator } from "../../transfer/index.js";
import { ForkDisks } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { asRoomError } from "../store/files.js";
import { makeWhole } from "../transfers/sharers.js";
import { requireTracked } from "./admission.js";
import type { Guest } from "./guest.js";

/**
 * Freezes a running guest: it stands still with its device state saved beside its memory, which nobody writes any more. Children are made of both, as many as
 * there is room for and without any pause; they share the memory, and nothing of it need be tracked.
 * A guest that shares its own parent's memory is given all its pages first; having no memory file, it is not shared, but copied, by its children.
 * @throws AgentError `bad-state`, `busy` or `no-room`, GuestError; the guest runs on then.
 */
export async function freezeGuest(services: Services, guest: Guest): Promise<void> {
  guest.requireIdle();
  guest.requireState("frozen", "running");
  requireTracked(services.paths, "frozen on");
  await makeWhole(services, guest);
  const leave = guest.occupy({ what: "being frozen", transfers: [] });
  try {
    await stopAndSave(services, guest);
    // Only now may its memory be let go of: a new agent must not take what children share for what they have.
    await guest.update({ state: "frozen" });
    guest.live.shared.freeze();
  } finally {
    leave();
  }
}

async function stopAndSave(services: Services, guest: Guest): Promise<void> {
  const { emulator } = guest.live;
  const path = services.paths.template(guest.id);
  // What it writes when it is thawed is none of its children's.
  const disks = new ForkDisks(services, guest);
  try {
    await disks.prepare();
    await emulator.prepareDeviceState({ handOver: false });
    await disks.sync();
    disks.arm();
    await emulator.stop({ forGood: true });
    const saved = await emulator.saveDeviceState({ handOver: false });
    disks.taken();
    writeFileSync(path, saved.compose(), { mode: 0o600 });
    await disks.noted();
  } catch (error) {
    rmSync(path, { force: true });
    emulator.disks.forget();
    await emulator.resume();
    await disks.abandon();
    throw asRoomError(error, path);
  }
}

/**
 * Lets a frozen guest run on. What its children still share is protected first.
 * @throws AgentError `bad-state` or `busy`, GuestError or MemoryError; it is frozen or paused then.
 */
export async function thawGuest({ paths }: Services, guest: Guest): Promise<void> {
  guest.requireIdle();
  guest.requireState("thawed", "frozen");
  const leave = guest.occupy({ what: "being thawed", transfers: [] });
  try {
    const { shared, emulator } = guest.live;
    await shared.thaw();
    // From here on what children share is known from what is protected.
    await guest.update({ state: "paused" });
    rmSync(paths.template(guest.id), { force: true });
    await emulator.resume();
    await guest.update({ state: "running" });
  } finally {
    leave();
  }
}

/** A frozen guest's emulator as a fork sees it: it stands still anyway, and its state was saved when it was frozen. */
export function frozenEmulator({ paths }: Services, guest: Guest): ParentEmulator {
  const saved = { compose: () => readState(paths.template(guest.id)) };
  const at = { stoppedAtUs: 0, resumedAtUs: 0 };
  return {
    // Nothing goes ahead: all of it is there at once.
    prepareDeviceState: async () => new Uint8Array(0),
    snapshot: async (work) => {
      work.onStopped();
      await work.atInstant();
      return { ...saved, ...at };
    },
    stop: async () => at,
    saveDeviceState: async () => saved,
    resume: async () => at,
  };
}

function readState(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    const message = `the device state ${path} of a frozen guest cannot be read (${codeOf(cause)})`;
    throw new AgentError("bad-record", message, { cause });
  }
}
