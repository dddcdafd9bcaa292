import { existsSync, readdirSync } from "node:fs";
import { getPriority, setPriority } from "node:os";
import { messageOf, type Log } from "../base/index.js";

/** Niceness of the agent (setpriority(2)): ahead of emulators, behind what the system itself needs most. */
const NICENESS = -10;

/**
 * That of the thread that serves faults, beside the agent's others: at theirs, a fault waited for a slice of the sweep, whose threads never rest. With it, one
 * fault in a hundred takes half as long; at -20 it is hardly less.
 */
const FIRST_NICENESS = -15;

let first: number | undefined;

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

/** Puts a thread of the agent (its number, gettid(2)) ahead of the others, whenever the agent itself is ahead of emulators. */
export function goFirst(thread: number): void {
  first = thread;
  if (getPriority() === NICENESS) putFirst(thread);
}

function putFirst(thread: number): void {
  try {
    setPriority(thread, FIRST_NICENESS);
  } catch {
    // Where niceness is limited (RLIMIT_NICE) it stays with the others, ahead of emulators all the same.
  }
}

/** Niceness belongs to a thread (sched(7)), and the garbage collector's pause lasts until its slowest helper thread had its turn. */
function setAll(niceness: number): void {
  for (const thread of readdirSync("/proc/self/task").map(Number)) {
    try {
      setPriority(thread, niceness);
    } catch (error) {
      // One that has ended meanwhile is no reason to leave the others where they are.
      if (existsSync(`/proc/self/task/${thread}`)) throw error;
    }
  }
  if (first !== undefined && niceness === NICENESS) putFirst(first);
}
