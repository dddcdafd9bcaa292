import { spawnSync } from "node:child_process";

/** What scripts exit with when the machine lacks something that they cannot install. */
const EXIT_NEEDS = 3;

/** Why a script cannot make what it is for on this machine, in its own words; false when it has made it, or fails in another way. */
export function whyMissing(script: string, args: readonly string[] = []): string | false {
  const { status, stderr } = spawnSync(script, args, { encoding: "utf8" });
  return status === EXIT_NEEDS ? stderr.trim() : false;
}
