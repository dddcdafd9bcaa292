import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { whyMissing } from "./missing.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const SCRIPT = join(ROOT, "scripts/next-emulator");

/** A newer emulator than the installed one, from the distribution's backports, unpacked and not installed: a field of the agent's configuration names it. */
export function nextEmulator(): { path: string; dataDirectories: string[] } {
  const directory = join(ROOT, "build/emulators/beside");
  execFileSync(SCRIPT, [], { stdio: "inherit" });
  return {
    path: join(directory, "usr/bin/qemu-system-x86_64"),
    dataDirectories: ["qemu", "seabios"].map((name) => join(directory, "usr/share", name)),
  };
}

/** Why there is none on this machine, for `skip`; false when there is one. */
export function missingNextEmulator(): string | false {
  return whyMissing(SCRIPT);
}
