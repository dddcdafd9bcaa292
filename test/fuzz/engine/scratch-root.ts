import { existsSync } from "node:fs";
import { tmpdir } from "node:os";

/** Names the directory for a process's files to that process; main.ts removes it, also after a crash. */
export const SCRATCH_VARIABLE = "RAMET_FUZZ_SCRATCH";

/** Where files are made that are gone after the run: in memory where that is possible. */
export function scratchRoot(): string {
  return process.env[SCRATCH_VARIABLE] ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
}
