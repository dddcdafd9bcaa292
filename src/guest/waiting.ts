import { readFileSync, statSync } from "node:fs";

/** A file, whatever it is called. */
export interface FileIdentity {
  dev: number;
  ino: number;
}

/** Whether a process's first thread waits in a system call for this file. */
export type WaitsFor = (pid: number, file: FileIdentity) => boolean;

/**
 * Reads it from `/proc/PID/syscall` (proc(5)): the number of the system call in which the thread waits and its arguments, of which the first is a descriptor
 * where it is about a file; `running` while it does not wait. False for a process that has ended.
 */
export const waitsFor: WaitsFor = (pid, file) => {
  const descriptor = systemCallOf(pid)?.split(" ", 2)[1];
  if (descriptor === undefined) return false;
  const found = statSync(`/proc/${pid}/fd/${Number(descriptor)}`, { throwIfNoEntry: false });
  return found !== undefined && found.dev === file.dev && found.ino === file.ino;
};

/** Whether that can be found out about a process here. */
export function canSeeWaiting(pid: number): boolean {
  return systemCallOf(pid) !== undefined;
}

function systemCallOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/syscall`, "latin1");
  } catch {
    return undefined;
  }
}
