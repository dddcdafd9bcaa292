import { readdirSync, readFileSync } from "node:fs";
import { setPriority } from "node:os";

/** Between the agents' own (−10) and everything else: whoever waits for the emulator waits for an agent, too. */
const HURRIED = -9;
const USUAL = 0;

/** What QEMU calls the thread that reads commands (monitor/monitor.c); the kernel keeps 15 characters of a name. */
const READER = "IO mon_iothread";

/**
 * An emulator's main loop, which is the thread with the process's number (setpriority(2)), and the thread that reads its commands, ahead of other work on the
 * machine while a guest stands still for them; its processors stay as they are. Does nothing where that is not allowed, or the process has ended.
 */
export class EmulatorPriority {
  readonly #pid: number;
  /** Found when they are needed first; they live as long as the process. */
  #threads: readonly number[] | undefined;

  constructor(pid: number) {
    this.#pid = pid;
  }

  hurry(): void {
    this.#set(HURRIED);
  }

  /** Takes `hurry` back. */
  calm(): void {
    this.#set(USUAL);
  }

  #set(niceness: number): void {
    try {
      this.#threads ??= threadsOf(this.#pid);
      for (const thread of this.#threads) setPriority(thread, niceness);
    } catch {
      // Slower, and no worse.
    }
  }
}

function threadsOf(pid: number): number[] {
  const directory = `/proc/${pid}/task`;
  const isReader = (thread: string): boolean =>
    readFileSync(`${directory}/${thread}/comm`, "utf8").trimEnd() === READER;
  return [pid, ...readdirSync(directory).filter(isReader).map(Number)];
}
