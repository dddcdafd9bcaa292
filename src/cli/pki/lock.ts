import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../base/index.js";
import { CliError } from "../errors.js";

/**
 * Does something while nobody else does anything with the authority of a directory. What a process left behind that is gone does not count.
 * @throws CliError `failed` when somebody is at it.
 */
export function whileLocked<T>(directory: string, body: () => T): T {
  const path = join(directory, "lock");
  try {
    take(path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    const holder = Number(readFileSync(path, "utf8"));
    if (holder > 0 && existsSync(`/proc/${holder}`)) {
      throw new CliError("failed", `process ${holder} works with the authority in ${directory}`, {
        hint: "try again when it has ended",
      });
    }
    rmSync(path);
    take(path);
  }
  try {
    return body();
  } finally {
    rmSync(path, { force: true });
  }
}

function take(path: string): void {
  writeFileSync(path, String(process.pid), { flag: "wx", mode: 0o600 });
}
