import { assert, messageOf } from "../../base/index.js";
import type { PrivateMapping, Sharing } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Reservation } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import { TransferEntry } from "./transfer-entry.js";

/** A child that has mapped its parent's memory privately. */
interface Sharer {
  guest: Guest;
  live: LiveEmulator;
}

/** Whether children of a guest can share its memory. What is itself mapped privately is in no file that another one could map. */
export function canBeShared(guest: Guest): boolean {
  return guest.hasEmulator && guest.live.memory.private === undefined;
}

/** Has a child share its parent's memory from now on; it leaves when its emulator has ended. */
export function shareWith(
  services: Services,
  { parent, child }: { parent: LiveEmulator; child: Sharer },
): Sharing {
  const sharing = parent.shared.join(mappingOf(child), () => endSharer(services, child));
  child.live.sharing = sharing;
  return sharing;
}

/** Pages separated before the event loop has a turn: about 2 ms. */
const WHOLE_SLICE_PAGES = 1024;

/**
 * Gives a guest that shares another one's memory every page for itself, about half a second for each GiB: only then can its own writes be held up for children
 * of its own. Does nothing for any other guest.
 * @throws AgentError `no-room` when the host has no memory for them; it goes on sharing then, as far as it does.
 */
export async function makeWhole({ clock }: Services, guest: Guest): Promise<void> {
  const { memory, sharing } = guest.live;
  const mapping = memory.private;
  if (mapping === undefined || guest.record.sharing?.whole === true) return;
  const leave = guest.occupy({ what: "getting memory of its own", transfers: [] });
  try {
    await separateAll({ clock }, guest, mapping);
  } finally {
    leave();
  }
  sharing?.leave();
}

async function separateAll(
  { clock }: Pick<Services, "clock">,
  guest: Guest,
  mapping: PrivateMapping & { pageCount: number },
): Promise<void> {
  for (
    let first = 0;
    first < mapping.pageCount && guest.live.sharing !== undefined;
    first += WHOLE_SLICE_PAGES
  ) {
    const count = Math.min(WHOLE_SLICE_PAGES, mapping.pageCount - first);
    if (!mapping.separate({ first, count })) {
      const message = `guest ${guest.name} shares the memory of another guest, and there is no room for a copy of its own`;
      throw new AgentError("no-room", `${message}: fork or migrate that guest instead, or make room`);
    }
    await new Promise<void>((resolve) => clock.soon(resolve));
  }
  // A new agent must not touch pages of it that may be held up by then.
  await guest.update({ whole: true });
}

/**
 * Finds out which guests of an earlier agent share whose memory, before anybody is served: a parent's writer that is let through too early would be seen by
 * its children.
 */
export function restoreSharing(services: Services): void {
  const { registry, admission } = services;
  for (const guest of registry.list())
    if (guest.state === "frozen" && guest.hasEmulator) guest.live.shared.freeze();
  const orphaned = new Map<string, Reservation & { sharers: number }>();
  for (const guest of registry.list()) {
    const { sharing } = guest.record;
    if (sharing === undefined || !guest.hasEmulator) continue;
    registry.whenAnswering(guest, () => resumeIfPaused(guest));
    if (guest.state === "paused") keepHeld(services, guest);
    if (sharing.whole === true) continue;
    const child = { guest, live: guest.live };
    const parent = registry.byId(sharing.memory);
    if (parent?.hasEmulator === true) {
      const { shared } = parent.live;
      const joined = shared.rejoin(mappingOf(child), () => endSharer(services, child));
      child.live.sharing = joined;
      void child.live.exited.then(() => joined.leave());
      continue;
    }
    // The parent has ended: nobody writes the memory, and it goes with the last child. Until then it takes room.
    const room = orphaned.get(sharing.memory) ?? {
      ...admission.adopt(guest.config.memoryBytes),
      sharers: 0,
    };
    orphaned.set(sharing.memory, room);
    room.sharers += 1;
    void child.live.exited.then(() => {
      room.sharers -= 1;
      if (room.sharers === 0) room.release();
    });
  }
}

/** A child that was to be held can be let run by its transfer's number still. */
function keepHeld({ book, clock, configuration }: Services, guest: Guest): void {
  const { parent } = guest.record;
  if (parent === undefined || guest.occupation !== undefined) return;
  const entry = new TransferEntry({
    transfer: parent.transfer,
    kind: "fork",
    role: "parent",
    guest: parent.guest,
    peerGuest: guest.name,
    host: configuration.name,
    pageCount: guest.live.memory.pageCount,
    startedAtMs: guest.record.createdAtMs,
    clock,
  });
  entry.enter("complete");
  entry.commands = {
    cancel: async () => {},
    steer: () => {},
    run: async () => {
      guest.requireState("let run", "paused", "running");
      if (guest.state === "running") return;
      await guest.update({ state: "running" });
      await guest.live.emulator.resume();
    },
  };
  book.add(entry);
}

/** Serves the parents of an earlier agent whose children share their memory; no transfer of theirs does so after this. */
export function goOnSharing({ registry }: Services): void {
  for (const guest of registry.list()) {
    if (!guest.hasEmulator || !registry.isShared(guest)) continue;
    guest.live.shared.goOn();
    registry.whenAnswering(guest, () => resumeIfPaused(guest));
  }
}

function mappingOf({ live }: Sharer) {
  const mapping = live.memory.private;
  assert(mapping !== undefined, "who shares memory has it mapped privately");
  return mapping;
}

/** A child that cannot be given pages of its own must not see what its parent writes instead: it is ended, and its parent's writers wait for that. */
function endSharer({ configuration }: Services, { guest, live }: Sharer): void {
  const reason = `${configuration.name} had no memory for a page that its parent was about to write`;
  guest.endBecause(live, reason).catch((error: unknown) => {
    guest.log.error(
      { problem: messageOf(error) },
      "a child that cannot be given its pages could not be ended",
    );
  });
}

/** The agent before this one may have ended between writing that it runs and letting it. */
async function resumeIfPaused(guest: Guest): Promise<void> {
  if (guest.state !== "running" || (await guest.live.emulator.status()) !== "paused") return;
  await guest.live.emulator.resume();
}

/** Why a guest whose memory children share cannot leave its emulator, in words. */
export function sharedBy(sharers: number): string {
  return sharers === 1
    ? "a child on this host shares its memory; remove that first"
    : `${sharers} children on this host share its memory; remove them first`;
}
