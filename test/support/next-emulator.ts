import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Another emulator beside the installed one, newer where the distribution has a newer one, unpacked and not installed: a field of the agent's configuration names it. */
export function nextEmulator(): { path: string; dataDirectories: string[] } {
  const directory = join(ROOT, "build/emulators/beside");
  if (!existsSync(join(directory, "complete")))
    execFileSync(join(ROOT, "scripts/next-emulator"), [], { stdio: "inherit" });
  return {
    path: join(directory, "usr/bin/qemu-system-x86_64"),
    dataDirectories: ["qemu", "seabios"].map((name) => join(directory, "usr/share", name)),
  };
}
