import { readdirSync, readFileSync } from "node:fs";
import { codeOf } from "../base/index.js";
import { takeDescriptor } from "./descriptors.js";
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

/**
 * A descriptor of this process for the tap device that emulator `pid` has open, for a second emulator to inherit: the device stays, with its place in the network, when the first one
 * ends. Whatever of both reads it takes the packet. The caller closes it.
 * @throws MemoryError `gone`, `not-permitted` or `failed`.
 */
export function takeTap(pid: number, name: string): number {
  let numbers: string[];
  try {
    numbers = readdirSync(`/proc/${pid}/fdinfo`);
  } catch (cause) {
    throw new MemoryError("gone", `cannot read /proc/${pid}/fdinfo (${codeOf(cause)})`, { cause });
  }
  // The kernel says of an open tap device which one it is (Linux, tun_chr_show_fdinfo).
  const line = new RegExp(`^iff:\\s+${name}$`, "m");
  const found = numbers.find((number) => line.test(infoOf(pid, number)));
  if (found !== undefined) return takeDescriptor(pid, Number(found));
  throw new MemoryError("failed", `process ${pid} has no tap device ${name} open`);
}

function infoOf(pid: number, number: string): string {
  try {
    return readFileSync(`/proc/${pid}/fdinfo/${number}`, "utf8");
  } catch {
    // Closed since the directory was read.
    return "";
  }
}
