import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";

const STOP_MS = 5000;

/**
 * Does something while an agent stands still, which comes no further meanwhile: how far it is, read then, is how far it is when `work` kills somebody. An agent that `work` killed does nothing more.
 */
export function whileItStandsStill<T>(pid: number, work: () => T): T {
  process.kill(pid, "SIGSTOP");
  try {
    const until = performance.now() + STOP_MS;
    while (!standsStill(pid)) assert.ok(performance.now() < until, `process ${pid} stands still`);
    return work();
  } finally {
    signal(pid, "SIGCONT");
  }
}

/** Sends a signal to a process, unless it has ended. */
export function signal(pid: number | undefined, name: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

/** The signal is there at once, and each thread obeys it when it is next looked at. */
function standsStill(pid: number): boolean {
  return threadsOf(pid).every((thread) => {
    const stat = readIfThere(`/proc/${pid}/task/${thread}/stat`);
    return stat === undefined || /^[TZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  });
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
