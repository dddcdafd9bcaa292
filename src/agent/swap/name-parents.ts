import type { GuestRegistry } from "../guests/registry.js";

/**
 * Has the children of this host's guests say what their parents are called now. Whoever was forked to another host keeps the name that its parent had then. Resolves when it is on disk; may be
 * done again.
 */
export async function nameParents(registry: GuestRegistry, host: string): Promise<void> {
  const saved = registry.list().map(async (guest) => {
    const { parent, sharing } = guest.record;
    if (parent === undefined || parent.host !== host || parent.kind === "migrate") return;
    // Records of earlier versions have no id, but a child that shared memory says whose.
    const name = registry.byId(parent.id ?? sharing?.memory ?? "")?.name;
    if (name !== undefined && name !== parent.guest) await guest.update({ parentName: name });
  });
  await Promise.all(saved);
}
