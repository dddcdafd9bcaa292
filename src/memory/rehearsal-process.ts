import { spawn, type ChildProcess } from "node:child_process";
import { closeSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { assert, deferred, withDeadline, type Clock, type Deferred } from "../base/index.js";
import { openUserfaultDevice, preloadEnvironment } from "./device.js";
import { MemoryError } from "./errors.js";
import { nativePaths } from "./native.js";
import type { PageRange } from "./range.js";

/** The first that a process inherits besides its standard ones. */
const DEVICE_NUMBER = 3;

/** How long one may take to be ready, and for a command: also one that waits for pages. */
const DEADLINE_MS = 60_000;

/** A process with memory of its own, in the place of an emulator: see native/rehearsal.c. It ends with whoever started it, at the latest. */
export class RehearsalProcess {
  readonly pid: number;
  /** Its memory file, for as long as it lives. */
  readonly ramPath: string;
  readonly #process: ChildProcess;
  readonly #input: Writable;
  readonly #answers: Deferred<void>[];
  readonly #clock: Clock;

  private constructor(
    process: ChildProcess,
    parts: { input: Writable; answers: Deferred<void>[]; fd: number; clock: Clock },
  ) {
    assert(process.pid !== undefined, "a process that has said something has a number");
    this.pid = process.pid;
    this.ramPath = `/proc/${process.pid}/fd/${parts.fd}`;
    this.#process = process;
    this.#input = parts.input;
    this.#answers = parts.answers;
    this.#clock = parts.clock;
  }

  /** Starts one whose memory has so many pages, all of them holes. @throws MemoryError `not-built`, `not-permitted`, `unsupported` or `gone`; DeadlineError. Nothing is left then. */
  static async start(pageCount: number, clock: Clock): Promise<RehearsalProcess> {
    const device = openUserfaultDevice();
    let child: ChildProcess;
    try {
      child = spawn(nativePaths().rehearsal, [String(pageCount)], {
        stdio: ["pipe", "pipe", "ignore", device],
        env: preloadEnvironment(DEVICE_NUMBER),
      });
    } finally {
      closeSync(device);
    }
    const [input, output] = [child.stdin as Writable, child.stdout as Readable];
    const ready = deferred<number>();
    const answers: Deferred<void>[] = [];
    createInterface({ input: output }).on("line", (line) => {
      const fd = /^ready (\d+)$/.exec(line)?.[1];
      if (fd === undefined) answers.shift()?.resolve();
      else ready.resolve(Number(fd));
    });
    const onEnd = (): void => {
      const error = new MemoryError("gone", "the process that transfers are rehearsed on has ended");
      ready.reject(error);
      for (const answer of answers.splice(0)) answer.reject(error);
    };
    // What is written to one that has ended is told by its end.
    input.on("error", () => {});
    child.once("error", onEnd);
    child.once("exit", onEnd);
    try {
      const fd = await withDeadline(clock, DEADLINE_MS, "the start of a rehearsal's process", ready.promise);
      return new RehearsalProcess(child, { input, answers, fd, clock });
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  /** Puts content of every kind into some of its pages. The promises of all commands reject with MemoryError `gone` when it ends, or DeadlineError. */
  fill(range: PageRange): Promise<void> {
    return this.#tell(`fill ${range.first} ${range.count}`);
  }

  /** Reads pages of these at random, so many times. */
  read(range: PageRange, times: number): Promise<void> {
    return this.#tell(`read ${range.first} ${range.count} ${times}`);
  }

  /** Writes to pages of these at random, so many times. */
  write(range: PageRange, times: number): Promise<void> {
    return this.#tell(`write ${range.first} ${range.count} ${times}`);
  }

  /** Makes holes of all its pages. */
  empty(): Promise<void> {
    return this.#tell("empty");
  }

  /** Ends it at once, whatever it waits for. May be called twice. */
  end(): void {
    this.#process.kill("SIGKILL");
  }

  #tell(command: string): Promise<void> {
    const answer = deferred<void>();
    const answered = withDeadline(this.#clock, DEADLINE_MS, "a rehearsal's process", answer.promise);
    // Whoever has given up a rehearsal does not wait for what was under way.
    answered.catch(() => {});
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) {
      answer.reject(new MemoryError("gone", "the process that transfers are rehearsed on has ended"));
      return answered;
    }
    this.#answers.push(answer);
    this.#input.write(`${command}\n`);
    return answered;
  }
}
