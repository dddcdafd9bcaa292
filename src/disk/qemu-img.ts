import { spawn, type ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { codeOf, messageOf, type Clock, type Log, type Timer } from "../base/index.js";
import { DiskError } from "./errors.js";
import {
  MAX_TOOL_OUTPUT_BYTES,
  MAX_TOOL_WORDS,
  TOOL_DEADLINE_MS,
  TOOL_END_MS,
  TOOL_MEMORY_BYTES,
  TOOL_NICENESS,
  TOOL_STALL_MS,
} from "./limits.js";

/** What the program writes when it is given -p: `    (12.34/100%)` and a carriage return. */
const PROGRESS = /\((\d{1,3}\.\d{2})\/100%\)/g;

/** Fits in the longest text of progress, so that one that comes in two pieces is found. */
const PROGRESS_TAIL_CHARACTERS = 16;

/** The first descriptor after standard error: open files are passed from here on. */
const FIRST_PASSED_DESCRIPTOR = 3;

export interface QemuImgRun {
  args: readonly string[];
  /** With it the command is one that works through a whole disk (`args` has -p): it may take as long as it gets on. */
  onPercent?: ((percent: number) => void) | undefined;
  /** Kills the program; the run ends with `cancelled`. */
  signal?: AbortSignal | undefined;
  /** Open files that the program reaches as `passedPath(0)`, `passedPath(1)`, …, whatever directories they lie in. */
  files?: readonly number[];
  /** Runs the program as this user and group, without privileges: for files made by strangers. Only root can. */
  uid?: number | undefined;
  /** Exit codes besides 0 that are an answer. */
  accept?: readonly number[];
}

export interface QemuImgAnswer {
  code: number;
  output: string;
  /** The last of what it wrote to standard error. */
  words: string;
}

/** How a file of `QemuImgRun.files` is named in `args`. */
export function passedPath(index: number): string {
  return `/proc/self/fd/${FIRST_PASSED_DESCRIPTOR + index}`;
}

/**
 * The program qemu-img. It is started with a list of arguments and never through a shell, in English, with nothing of the agent's environment, with a
 * bound on its memory, and it does not outlive what it was started for: whoever runs it can cancel it, and one that does not get on is killed.
 */
export class QemuImg {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #program: string;
  readonly #stallMs: number;

  /** @param options.program another one of the same kind, such as qemu-io. `stallMs` is for tests. */
  constructor(options: { clock: Clock; log: Log; program?: string; stallMs?: number }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#program = options.program ?? "qemu-img";
    this.#stallMs = options.stallMs ?? TOOL_STALL_MS;
  }

  /**
   * Runs a command to its end.
   * @throws DiskError `not-installed`, `tool-failed` with the program's own words, `no-room`, `timeout`, `cancelled`.
   */
  async run(run: QemuImgRun): Promise<QemuImgAnswer> {
    const name = `${this.#program} ${run.args[0] ?? ""}`;
    if (run.signal?.aborted === true) throw new DiskError("cancelled", `${name} was cancelled`);
    const limitMs = run.onPercent === undefined ? Math.min(TOOL_DEADLINE_MS, this.#stallMs) : this.#stallMs;
    const running = new RunningTool({ name, clock: this.#clock, log: this.#log, limitMs, run });
    const answer = await running.end(this.#start(run));
    if (answer.code === 0 || run.accept?.includes(answer.code) === true) return answer;
    const said = answer.words === "" ? `it ended with code ${answer.code}` : answer.words;
    const full = /No space left on device|Disk quota exceeded/.test(said);
    throw new DiskError(full ? "no-room" : "tool-failed", `${name}: ${said}`);
  }

  /** prlimit(1) becomes the program, so that its process is that of qemu-img. */
  #start(run: QemuImgRun): ChildProcess {
    const limits = [`--as=${TOOL_MEMORY_BYTES}`, "--core=0"];
    const environment = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" };
    const child = spawn("prlimit", [...limits, "--", this.#program, ...run.args], {
      cwd: "/",
      env: environment,
      stdio: ["ignore", "pipe", "pipe", ...(run.files ?? [])],
      ...(run.uid === undefined ? {} : { uid: run.uid, gid: run.uid }),
    });
    if (child.pid !== undefined) this.#stepBack(child.pid);
    return child;
  }

  /** The agent goes ahead of guests, and is the last to be killed for want of memory; what it starts is neither. */
  #stepBack(pid: number): void {
    try {
      setPriority(pid, TOOL_NICENESS);
      writeFileSync(`/proc/${pid}/oom_score_adj`, "500");
    } catch (error) {
      // It may have ended by now.
      this.#log.debug({ pid, problem: messageOf(error) }, "a program keeps the agent's priority");
    }
  }
}

/** One run of the program: what it writes, how far it is, and what ends it early. */
class RunningTool {
  readonly #name: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #limitMs: number;
  readonly #run: QemuImgRun;
  readonly #output: Buffer[] = [];
  #outputBytes = 0;
  #tail = "";
  #words = "";
  #timer: Timer | undefined;
  #child: ChildProcess | undefined;
  #failure: DiskError | undefined;
  #settle: (answer: QemuImgAnswer | DiskError) => void = () => {};

  constructor(options: { name: string; clock: Clock; log: Log; limitMs: number; run: QemuImgRun }) {
    this.#name = options.name;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#limitMs = options.limitMs;
    this.#run = options.run;
  }

  async end(child: ChildProcess): Promise<QemuImgAnswer> {
    this.#child = child;
    const settled = new Promise<QemuImgAnswer | DiskError>((resolve) => (this.#settle = resolve));
    child.stdout?.on("data", (bytes: Buffer) => this.#onOutput(bytes));
    child.stderr?.on("data", (bytes: Buffer) => {
      this.#words = `${this.#words}${bytes.toString()}`.slice(-MAX_TOOL_WORDS);
    });
    child.on("error", (error) => this.#settle(this.#notStarted(error)));
    child.on("close", (code, signal) => this.#onClose(code, signal));
    const cancel = (): void => this.#kill(new DiskError("cancelled", `${this.#name} was cancelled`));
    this.#run.signal?.addEventListener("abort", cancel, { once: true });
    this.#watch();
    try {
      const outcome = await settled;
      if (outcome instanceof DiskError) throw outcome;
      return outcome;
    } finally {
      this.#timer?.cancel();
      this.#run.signal?.removeEventListener("abort", cancel);
    }
  }

  /** Ends the run when nothing is heard of it for too long. */
  #watch(): void {
    this.#timer?.cancel();
    const what = this.#run.onPercent === undefined ? "did not end" : "did not get on";
    this.#timer = this.#clock.after(this.#limitMs, () =>
      this.#kill(new DiskError("timeout", `${this.#name} ${what} for ${this.#limitMs / 1000} seconds`)),
    );
  }

  #kill(failure: DiskError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#child?.kill("SIGKILL");
    this.#timer?.cancel();
    // A process that waits for a network file system that does not answer cannot be killed; nobody is to wait for it here.
    this.#timer = this.#clock.after(TOOL_END_MS, () => {
      this.#log.warn({ pid: this.#child?.pid, tool: this.#name }, "a program does not end");
      this.#settle(failure);
    });
  }

  #onOutput(bytes: Buffer): void {
    if (this.#run.onPercent !== undefined) return this.#onProgress(bytes.toString("latin1"));
    this.#outputBytes += bytes.length;
    if (this.#outputBytes <= MAX_TOOL_OUTPUT_BYTES) this.#output.push(bytes);
    else this.#kill(new DiskError("tool-failed", `${this.#name} writes more than an answer is long`));
  }

  #onProgress(text: string): void {
    const found = [...`${this.#tail}${text}`.matchAll(PROGRESS)].at(-1);
    this.#tail = `${this.#tail}${text}`.slice(-PROGRESS_TAIL_CHARACTERS);
    if (found === undefined || this.#failure !== undefined) return;
    this.#watch();
    this.#run.onPercent?.(Math.min(Number(found[1]), 100));
  }

  #onClose(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#failure !== undefined) return this.#settle(this.#failure);
    const words = this.#words.trim().replaceAll(/\s*\n\s*/g, "; ");
    if (code === 127 && words.startsWith("prlimit:")) return this.#settle(this.#missing(words));
    if (code === null) {
      const said = words === "" ? "" : `: ${words}`;
      return this.#settle(new DiskError("tool-failed", `${this.#name} was ended by ${signal}${said}`));
    }
    this.#settle({ code, words, output: Buffer.concat(this.#output).toString() });
  }

  #notStarted(error: Error): DiskError {
    if (codeOf(error) === "ENOENT") return this.#missing(messageOf(error));
    return new DiskError("tool-failed", `${this.#name} could not be started: ${messageOf(error)}`, {
      cause: error,
    });
  }

  #missing(words: string): DiskError {
    return new DiskError(
      "not-installed",
      `${this.#name} cannot be run on this host (${words}); as root: apt-get install qemu-utils util-linux`,
    );
  }
}
