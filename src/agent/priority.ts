import { readdirSync } from "node:fs";
import { setPriority } from "node:os";
import { messageOf, type Log } from "../base/index.js";

/** Niceness of the agent (setpriority(2)): ahead of emulators, behind what the system itself needs most. */
const NICENESS = -10;

/** That of everything else. */
const USUAL = 0;

/**
 * Puts the agent ahead of the emulators of its host. Every fault of a guest waits for this process, and a busy guest would otherwise keep it from a
 * processor for whole time slices: with two busy guests on two processors, faults waited milliseconds instead of microseconds. Emulators go
 * back to normal priority by themselves, in the preloaded library.
 */
export function raisePriority(log: Log): void {
  try {
    setAll(NICENESS);
  } catch (error) {
    log.warn(
      { message: messageOf(error) },
      "not permitted to run ahead of emulators (CAP_SYS_NICE); faults will wait longer on a busy host",
    );
  }
}

/** Puts it beside them, while nobody waits for it, until `raisePriority` is called again. */
export function calmPriority(): void {
  setAll(USUAL);
}

/** Niceness belongs to a thread (sched(7)), and the garbage collector's pause lasts until its slowest helper thread had its turn. */
function setAll(niceness: number): void {
  for (const thread of readdirSync("/proc/self/task")) setPriority(Number(thread), niceness);
}
