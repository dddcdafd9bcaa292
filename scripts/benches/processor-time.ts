import { readdirSync, readFileSync } from "node:fs";

/** proc(5): clock ticks, of which Linux tells user space 100 a second on all architectures. */
const TICKS_PER_SECOND = 100;

/** Places after the command's name, which is in parentheses and may hold anything. */
const USER_TIME = 11;
const SYSTEM_TIME = 12;

function timesOf(path: string): { user: number; system: number } {
  const text = readFileSync(path, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const seconds = (place: number): number => Number(fields[place]) / TICKS_PER_SECOND;
  return { user: seconds(USER_TIME), system: seconds(SYSTEM_TIME) };
}

function secondsOf(path: string): number {
  const { user, system } = timesOf(path);
  return user + system;
}

/** Those outside of the kernel, as `processorSeconds` has them. */
export function userSeconds(pid: number): number {
  return timesOf(`/proc/${pid}/stat`).user;
}

/** Seconds of processor time a process has used, user and system, with all its threads and those that have ended; exact to 10 ms. */
export function processorSeconds(pid: number): number {
  return secondsOf(`/proc/${pid}/stat`);
}

/** The same of an emulator without the threads that are its guest's processors. */
export function emulatorSeconds(pid: number): number {
  const ofGuest = readdirSync(`/proc/${pid}/task`)
    .filter((thread) => readFileSync(`/proc/${pid}/task/${thread}/comm`, "utf8").startsWith("CPU "))
    .reduce((sum, thread) => sum + secondsOf(`/proc/${pid}/task/${thread}/stat`), 0);
  return processorSeconds(pid) - ofGuest;
}
