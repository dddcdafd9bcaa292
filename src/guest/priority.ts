import { setPriority } from "node:os";

/** Between the agents' own (−10) and everything else: whoever waits for the emulator waits for an agent, too. */
const HURRIED = -9;
const USUAL = 0;

/**
 * Puts an emulator's main loop, which is the thread with the process's number (setpriority(2)), ahead of other work on the machine while a guest stands still for
 * it; its processors stay as they are. Does nothing where that is not allowed, or the process has ended.
 */
export function hurry(pid: number): void {
  set(pid, HURRIED);
}

/** Takes `hurry` back. */
export function calm(pid: number): void {
  set(pid, USUAL);
}

function set(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness);
  } catch {
    // Slower, and no worse.
  }
}
