import { existsSync } from "node:fs";
import { messageOf, type Log } from "../../base/index.js";
import type { DiskStore } from "../../disk/index.js";
import { isUnderWay, type DiskLayer } from "../../guest/index.js";
import type { Guest } from "../guests/guest.js";
import type { GuestRegistry } from "../guests/registry.js";

/** What has arrived: a layer of a chain, or a base disk under one. */
export interface Arrived {
  id: string;
  /** Where it lies, when that may be elsewhere than it was said to be. */
  path?: string;
}

/**
 * Has the emulators of all guests read a layer where it lies, which was on its way before.
 * @returns false when there is one that cannot yet.
 */
export async function localise(
  { registry, log }: { registry: GuestRegistry; log: Log },
  store: DiskStore,
  arrived: Arrived,
): Promise<boolean> {
  // A guest whose emulator is being started is none yet, and may have been told of the socket.
  const isExpected = store.list().some(({ id: top, writer }) => {
    if (writer === undefined || registry.byId(writer) !== undefined) return false;
    return store.chainOf(top).some((layer) => layer.id === arrived.id);
  });
  if (isExpected) return false;
  let isDone = true;
  for (const guest of registry.list()) {
    try {
      if (!(await localiseIn(guest, arrived))) isDone = false;
    } catch (error) {
      isDone = false;
      log.warn(
        { guest: guest.name, disk: arrived.id, problem: messageOf(error) },
        "a disk is not read locally yet",
      );
    }
  }
  return isDone;
}

async function localiseIn(guest: Guest, arrived: Arrived): Promise<boolean> {
  for (const disk of guest.config.disks) {
    const layer = disk.chain.find((each) => each.id === arrived.id && isUnderWay(each));
    if (layer === undefined) continue;
    const local = localLayer(layer, arrived);
    if (guest.hasEmulator) {
      const { emulator } = guest.live;
      // It reads what the file says of itself when its device state is loaded, not before.
      if ((await emulator.status()) === "incoming") return false;
      await emulator.disks.localise(disk, seenBy(guest, layer, local));
    } else if (guest.state === "starting" || guest.state === "receiving") return false;
    await guest.update({
      disks: guest.config.disks.map((each) => ({
        ...each,
        chain: each.chain.map((link) => (link.id === arrived.id ? local : link)),
      })),
    });
  }
  return true;
}

function localLayer({ id, format, path }: DiskLayer, arrived: Arrived): DiskLayer {
  return { id, format, path: arrived.path ?? path };
}

/** An emulator with a file system of its own has the file where it was said to be; another one where it is. */
function seenBy(guest: Guest, { path, shared }: DiskLayer, local: DiskLayer): DiskLayer {
  if (shared === true) return local;
  const hasOwnFiles = guest.live.isolation?.ownFiles === true;
  return hasOwnFiles || existsSync(path) ? { ...local, path } : local;
}
