import { MemoryError } from "./errors.js";
import { errnoName, loadNative } from "./native.js";

/**
 * Makes a tap device for an emulator to inherit, which then needs no right to make one. Here because the one addon is. The device is gone
 * when its last descriptor is closed; the caller closes this one.
 * @param name at most 15 bytes, of no device that exists.
 * @throws MemoryError `failed` or `not-permitted`.
 */
export function openTap(name: string): number {
  const fd = loadNative().openTap(name);
  if (fd >= 0) return fd;
  const reason = errnoName(fd);
  if (reason === "EPERM" || reason === "EACCES")
    throw new MemoryError(
      "not-permitted",
      `may not make the tap device ${name} (${reason}); run the agent as root`,
    );
  const cure = reason === "ENOENT" ? "; load the kernel module tun" : "";
  throw new MemoryError(
    "failed",
    `the tap device ${name} cannot be made from /dev/net/tun (${reason})${cure}`,
  );
}
