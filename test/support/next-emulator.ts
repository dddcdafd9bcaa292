import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const ROOT = new URL("../..", import.meta.url).pathname;

/** A newer emulator than the installed one, from the distribution's backports, unpacked and not installed: a field of the agent's configuration names it. */
export function nextEmulator(): { path: string; dataDirectories: string[] } {
  const directory = join(ROOT, "build/emulators/backports");
  const path = join(directory, "usr/bin/qemu-system-x86_64");
  const share = ["qemu", "seabios"].map((name) => join(directory, "usr/share", name));
  if (![path, ...share].every((part) => existsSync(part))) {
    const packages = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
    const args = ["--into", directory, "--suite", "bookworm-backports", ...packages];
    execFileSync(join(ROOT, "scripts/fetch-packages"), args, { stdio: "inherit" });
  }
  return { path, dataDirectories: share };
}
