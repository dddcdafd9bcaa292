import { readdirSync, readFileSync } from "node:fs";
import { setPriority } from "node:os";

/** Between the agents' own (−10) and everything else: whoever waits for the emulator waits for an agent, too. */
const HURRIED = -9;
const USUAL = 0;

/** What QEMU calls the thread that reads commands (monitor/monitor.c); the kernel keeps 15 characters of a name. */
const READER = /^IO mon_iothread$/;
/** And those that are the guest's processors (accel). */
const PROCESSOR = /^CPU \d+\//;

/**
 * An emulator's main loop, which is the thread with the process's number (setpriority(2)), and the thread that reads its commands, ahead of other work on the
 * machine while a guest stands still for them; its processors stay as they are, but while they run nothing and are waited for. Does nothing where that is not allowed, or the process has ended.
 */
export class EmulatorPriority {
  readonly #pid: number;
  /** Found when they are needed first; they live as long as the process. */
  #threads: readonly number[] | undefined;
  /** Those that may be ahead. Unknown at first: an agent before this one may have put them there. */
  #processors: readonly number[] | undefined;

  constructor(pid: number) {
    this.#pid = pid;
  }

  hurry(): void {
    this.#set(HURRIED);
  }

  /** The processors, too, of a guest that does not run: the main loop waits for each of them while it loads a device state. */
  hurryAll(): void {
    this.hurry();
    attempt(() => {
      this.#processors = threadsOf(this.#pid, PROCESSOR);
      setAll(this.#processors, HURRIED);
    });
  }

  /** Takes `hurry` and `hurryAll` back. */
  calm(): void {
    this.#set(USUAL);
    attempt(() => setAll(this.#processors ?? threadsOf(this.#pid, PROCESSOR), USUAL));
    this.#processors = [];
  }

  #set(niceness: number): void {
    attempt(() => {
      this.#threads ??= [this.#pid, ...threadsOf(this.#pid, READER)];
      setAll(this.#threads, niceness);
    });
  }
}

function attempt(act: () => void): void {
  try {
    act();
  } catch {
    // Slower, and no worse.
  }
}

function setAll(threads: readonly number[], niceness: number): void {
  for (const thread of threads) setPriority(thread, niceness);
}

function threadsOf(pid: number, name: RegExp): number[] {
  const directory = `/proc/${pid}/task`;
  const isNamed = (thread: string): boolean =>
    name.test(readFileSync(`${directory}/${thread}/comm`, "utf8").trimEnd());
  return readdirSync(directory).filter(isNamed).map(Number);
}
