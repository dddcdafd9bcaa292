import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { codeOf } from "../base/index.js";

/** Images may be read by other hosts and by any emulator. */
const SHARED_MODE = 0o644;

/**
 * Writes a file that is safe on the disk when the promise resolves.
 * @param options.flags as of open(2): by default there must be no such file.
 */
export async function writeSynced(
  path: string,
  content: string | Uint8Array,
  { flags = "wx", mode = SHARED_MODE }: { flags?: "w" | "wx"; mode?: number } = {},
): Promise<void> {
  const file = await open(path, flags, mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } catch (error) {
    // Some network file systems sync directories by themselves and know no such call.
    if (codeOf(error) !== "EINVAL" && codeOf(error) !== "ENOTSUP") throw error;
  } finally {
    await directory.close();
  }
}
