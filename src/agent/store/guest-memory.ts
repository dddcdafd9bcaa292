import { existsSync, writeFileSync } from "node:fs";
import { readdir, rm, truncate } from "node:fs/promises";
import type { Paths } from "./paths.js";

/**
 * Wipes and removes the memory of a guest that has no emulator any more. Cutting the file to nothing gives its pages back at once, also should
 * somebody still have it open or mapped, and the kernel clears a page before anyone else gets it. Writing over the content first would do no more:
 * it would bring pages back that had been swapped out, and leave their copies on the swap device as they are.
 *
 * What children may have mapped privately is not cut: they see it until they end, and the last one's end gives the pages back.
 */
export async function removeGuestMemory(paths: Paths, id: string): Promise<void> {
  try {
    if (!existsSync(paths.sharedMark(id))) await truncate(paths.ram(id), 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  await rm(paths.guestMemory(id), { recursive: true, force: true });
}

/** Notes that an emulator is about to map a guest's memory privately. Throws the file system's error. */
export function markShared(paths: Paths, id: string): void {
  writeFileSync(paths.sharedMark(id), "", { mode: 0o600 });
}

/** Removes memory whose guest's directory is gone: what is left when the machine loses power between the two removals. */
export async function removeStrayMemory(paths: Paths, pattern: RegExp): Promise<void> {
  const known = new Set(await readdir(paths.guests));
  for (const id of await readdir(paths.memory)) {
    if (pattern.test(id) && !known.has(id)) await removeGuestMemory(paths, id);
  }
}
