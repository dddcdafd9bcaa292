import { tenantOfGuest } from "../../base/index.js";
import { nodeOf, type DiskFreeze, type DiskLayer } from "../../guest/index.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { settleDisks } from "./fork-disks.js";
import { localise } from "./localise.js";

type HomeServices = Pick<Services, "disks" | "registry" | "log">;

/**
 * Brings what guests write where hosts share it to this host's own disks, as far as that may be now; the guests run on. To be called until nothing is shared any more:
 *
 *     T ◀── C, shared, the guest writes it     until all of the guest is here
 *     T ◀── C, shared, frozen ◀── L            an empty layer of this host's is put over it; the guest writes that
 *     T ◀── C ◀── L                            C, which nobody writes any more, was copied and is read here; the shared one goes
 *
 * Each step may be the last of an agent: the next one goes on from what the emulator and the files say.
 * @param options.signal of an agent that ends.
 * @throws DiskError, GuestError, AgentError: it is to be tried again.
 */
export async function bringHome(
  services: HomeServices,
  {
    signal,
    onProgress,
  }: { signal: AbortSignal; onProgress: (disk: string, doneBytes: number, sizeBytes: number) => void },
): Promise<void> {
  const { registry, disks, log } = services;
  const isClosed = (): boolean => signal.aborted;
  for (const guest of registry.list()) {
    if (isClosed()) return;
    if (guest.hasEmulator && mayBringHome(guest)) await writeHere(services, guest);
  }
  const shared = disks.store.list().filter(({ sharedAt }) => sharedAt !== undefined);
  for (const { id, sharedAt } of shared) {
    if (isClosed() || !isToComeHome(services, id)) continue;
    await disks.store.shared.bringHome(id, {
      signal,
      onProgress: (doneBytes, sizeBytes) => onProgress(id, doneBytes, sizeBytes),
    });
    if (!(await localise({ registry, log }, disks.store, { id, path: disks.store.pathOf(id) }))) continue;
    await disks.store.shared.settleHome(id);
    log.info({ disk: id, from: sharedAt }, "what a guest wrote where hosts share it is here");
  }
}

/** Whether all of a guest is here, and it writes where hosts share it. */
function mayBringHome(guest: Guest): boolean {
  const isAtRest = guest.occupation === undefined && (guest.state === "running" || guest.state === "paused");
  const tops = guest.config.disks.map(({ chain }) => chain[0]);
  return isAtRest && isAllHere(guest) && tops.some((top) => top?.shared === true);
}

/** A migrated guest that is not complete, or never came to be, has its writes kept where the host that it left finds them. */
function isAllHere({ record, state, config }: Guest): boolean {
  const { parent } = record;
  if (state === "receiving" || (parent?.kind === "migrate" && parent.complete !== true)) return false;
  return config.disks.every(({ chain }) => chain.every(({ socket }) => socket === undefined));
}

/** Nobody writes it any more, and no guest that has it may yet need it elsewhere. */
function isToComeHome({ disks, registry }: HomeServices, id: string): boolean {
  const guests = registry
    .list()
    .filter(({ config }) => config.disks.some(({ chain }) => chain.some((layer) => layer.id === id)));
  const { frozen, writer } = disks.store.get(id);
  const isWritten = !frozen && (writer === undefined || registry.byId(writer)?.hasEmulator !== false);
  return guests.length > 0 && !isWritten && guests.every(isAllHere);
}

/** Puts empty layers of this host's over what a guest writes where hosts share it. */
async function writeHere(services: HomeServices, guest: Guest): Promise<void> {
  const { disks } = services;
  const leave = guest.occupy({ what: "its disks being brought to this host", transfers: [] });
  let freezes: DiskFreeze[] = [];
  try {
    const shared = guest.config.disks.filter(({ chain }) => chain[0]?.shared === true);
    const over = await disks.layOver(shared, guest.id, { tenant: tenantOfGuest(guest.name) });
    freezes = shared.map((disk, index) => ({ disk, overlay: over[index]?.chain[0] as DiskLayer }));
    const uid = guest.live.isolation?.user ?? 0;
    for (const { overlay } of freezes) await disks.store.give(overlay.id, uid);
    await guest.live.emulator.disks.open(freezes);
    await guest.live.emulator.disks.freezeNow(freezes);
    guest.log.info(
      { nodes: freezes.map(({ disk, overlay }) => nodeOf(disk, overlay)) },
      "a guest writes to this host's own disks",
    );
  } finally {
    // Whatever came of it, the emulator says.
    await settleDisks(services, guest, freezes).finally(leave);
  }
}
