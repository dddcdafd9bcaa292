import { readdirSync } from "node:fs";
import { getPriority } from "node:os";

/** The niceness of each thread of a process; of those that end meanwhile, none. */
export function nicenessOfThreads(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) => {
    try {
      return [getPriority(Number(thread))];
    } catch {
      return [];
    }
  });
}
