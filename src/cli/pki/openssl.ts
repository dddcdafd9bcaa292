import { spawnSync } from "node:child_process";
import { CliError } from "../errors.js";

const DEADLINE_MS = 60_000;

/**
 * Runs the program openssl and waits for its end; everything it writes is for its owner only.
 * @param directory the authority's, which relative paths start from.
 * @throws CliError `failed` with openssl's last words, or when there is no such program.
 */
export function openssl(directory: string, ...args: string[]): void {
  const umask = process.umask(0o077);
  try {
    const { status, stderr, error } = spawnSync("openssl", args, {
      cwd: directory,
      encoding: "utf8",
      stdio: ["ignore", "ignore", "pipe"],
      timeout: DEADLINE_MS,
    });
    if (error !== undefined && "code" in error && error.code === "ENOENT") {
      throw new CliError("failed", "the program openssl is not installed", {
        hint: "apt-get install openssl; or make certificates with an authority of your own: docs/security.md",
      });
    }
    if (status === 0) return;
    const said = stderr.trim().split("\n").slice(-3).join("; ");
    throw new CliError("failed", `openssl ${args[0]} failed: ${said === "" ? String(error) : said}`);
  } finally {
    process.umask(umask);
  }
}
