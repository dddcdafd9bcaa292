import type { Disk } from "./disk-entry.js";

/** What is asked of the store. */
interface Store {
  find(id: string): Disk | undefined;
  childrenOf(id: string): Disk[];
  remove(id: string): Promise<void>;
}

/** As `DiskStore.removeUnused`. */
export async function removeUnused(
  store: Store,
  ids: Iterable<string>,
  isUsed: (disk: Disk) => boolean,
): Promise<string[]> {
  const removed: string[] = [];
  const named = new Set(ids);
  for (let next = [...named]; next.length > 0;) {
    const below: string[] = [];
    for (const id of next) {
      const disk = store.find(id);
      if (disk === undefined || store.childrenOf(id).length > 0 || isUsed(disk)) continue;
      // Whatever the caller says: what somebody writes goes only when it was named.
      if (
        disk.lent !== undefined ||
        disk.adoptedFor !== undefined ||
        (disk.writer !== undefined && !named.has(id))
      )
        continue;
      await store.remove(id);
      removed.push(id);
      if (disk.parent !== undefined && "disk" in disk.parent) below.push(disk.parent.disk);
    }
    next = below;
  }
  return removed;
}
