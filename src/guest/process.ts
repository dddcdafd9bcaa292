/**
 * Processes, told apart by pid *and* start time: a pid that was used again is another process and is never signalled
 * (proc(5): field 22 of /proc/PID/stat is the time the process started, in ticks since the machine did).
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { sleep, withDeadline, type Clock } from "../base/index.js";
import { GuestError } from "./errors.js";
import { EXIT_POLL_MS } from "./limits.js";

/** One process, for as long as it lives. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: string;
}

/** How a process that was started here ended. */
export interface ProcessEnd {
  code: number | undefined;
  signal: string | undefined;
}

/** Fields of /proc/PID/stat, counted from behind the program's name. */
const STATE_FIELD = 0;
const THREADS_FIELD = 17;
const START_TIME_FIELD = 19;

function startTimeOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses and may hold anything, so count from the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie has ended and only waits to be reaped, unless just its first thread has: the others still hold files and memory.
  const isZombie = fields[STATE_FIELD] === "Z" || fields[STATE_FIELD] === "X";
  if (isZombie && Number(fields[THREADS_FIELD]) <= 1) return undefined;
  return fields[START_TIME_FIELD];
}

/** The process that has this pid now; undefined when there is none. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const startTime = startTimeOf(pid);
  return startTime === undefined ? undefined : { pid, startTime };
}

/** Whether the process still lives. */
export function isAlive(identity: ProcessIdentity): boolean {
  return startTimeOf(identity.pid) === identity.startTime;
}

/** Sends a signal, unless the process has ended meanwhile. */
export function signalProcess(identity: ProcessIdentity, signal: "SIGTERM" | "SIGKILL"): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(identity.pid, signal);
  } catch {
    // It ended between the look and the signal.
  }
}

/** The arguments of a process; empty when it has ended. */
export function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/**
 * Waits until a process has ended.
 * @throws GuestError `timeout`.
 */
export async function waitForEnd(
  identity: ProcessIdentity,
  options: { clock: Clock; deadlineMs: number },
): Promise<void> {
  const { clock, deadlineMs } = options;
  const untilUs = clock.nowUs() + deadlineMs * 1000;
  while (isAlive(identity)) {
    if (clock.nowUs() > untilUs)
      throw new GuestError("timeout", `process ${identity.pid} did not end within ${deadlineMs} ms`);
    await sleep(clock, EXIT_POLL_MS);
  }
}

/**
 * Starts a program that outlives this one: in a session of its own, its output in a file, with only the environment and the
 * descriptors it is given (3, 4, … in the program).
 * @throws GuestError `not-installed` when there is no such program, `start-failed` otherwise.
 */
export async function startDetached(options: {
  binary: string;
  args: readonly string[];
  environment: Readonly<Record<string, string>>;
  descriptors: readonly number[];
  /** Where it starts; this process's directory when absent. */
  directory?: string;
  logPath: string;
  clock: Clock;
  deadlineMs: number;
  onEnd(end: ProcessEnd): void;
}): Promise<ProcessIdentity> {
  const log = openSync(options.logPath, "a", 0o600);
  try {
    const child = spawn(options.binary, options.args, {
      detached: true,
      ...(options.directory === undefined ? {} : { cwd: options.directory }),
      env: { ...options.environment },
      stdio: ["ignore", log, log, ...options.descriptors],
    });
    child.once("exit", (code, signal) =>
      options.onEnd({ code: code ?? undefined, signal: signal ?? undefined }),
    );
    const spawned = new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    await withDeadline(options.clock, options.deadlineMs, `the start of ${options.binary}`, spawned);
    child.unref();
    const identity = child.pid === undefined ? undefined : identifyProcess(child.pid);
    // A process that has ended already still has its pid here, for nobody has reaped it before this function returns.
    return identity ?? { pid: child.pid ?? 0, startTime: "ended" };
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") {
      throw new GuestError("not-installed", `there is no emulator ${options.binary} on this host`, { cause });
    }
    throw new GuestError("start-failed", `the emulator ${options.binary} could not be started`, { cause });
  } finally {
    closeSync(log);
  }
}
