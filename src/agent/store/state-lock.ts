import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { codeOf, sleep, type Clock } from "../../base/index.js";
import { AgentError } from "../errors.js";

/** The descriptor number flock(1) finds the file at. */
const LOCK_DESCRIPTOR = 3;
const RETRY_INTERVAL_MS = 5;

/**
 * Keeps a second agent off a directory of state, or of guest memory. The lock is flock(2)'s: it belongs to the open file, so it ends with this process
 * however that ends, and no stale lock is ever left. Node cannot call flock, so flock(1) (util-linux, on every Linux) locks
 * the descriptor it inherits and goes away.
 */
export class StateLock {
  readonly #descriptor: number;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** @throws AgentError `state-directory-locked` when another agent runs on the directory. */
  static take(directory: string, kind: "state" | "memory" = "state"): StateLock {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, "lock");
    const descriptor = openSync(path, "a+", 0o600);
    const { status, error } = spawnSync("flock", ["--exclusive", "--nonblock", String(LOCK_DESCRIPTOR)], {
      stdio: ["ignore", "ignore", "ignore", descriptor],
      timeout: 5000,
    });
    if (status !== 0) {
      const holder = readFileSync(path, "utf8").trim();
      closeSync(descriptor);
      const cause =
        error === undefined
          ? `another agent${holder === "" ? "" : ` (process ${holder})`} runs on it; give each agent a --${kind}-directory of its own`
          : `flock (package util-linux) could not be run: ${error.message}`;
      throw new AgentError(
        "state-directory-locked",
        `the ${kind} directory ${directory} cannot be locked: ${cause}`,
      );
    }
    ftruncateSync(descriptor, 0);
    writeSync(descriptor, `${process.pid}\n`);
    return new StateLock(descriptor);
  }

  /**
   * Takes the lock as soon as whoever has it lets go.
   * @throws AgentError `state-directory-locked` when that takes longer than `deadlineMs`.
   */
  static async takeSoon(
    directory: string,
    options: { kind: "state" | "memory"; clock: Clock; deadlineMs: number },
  ): Promise<StateLock> {
    const untilUs = options.clock.nowUs() + options.deadlineMs * 1000;
    for (;;) {
      try {
        return StateLock.take(directory, options.kind);
      } catch (error) {
        if (codeOf(error) !== "state-directory-locked" || options.clock.nowUs() >= untilUs) throw error;
        await sleep(options.clock, RETRY_INTERVAL_MS);
      }
    }
  }

  /** Lets another agent have the directory. */
  release(): void {
    closeSync(this.#descriptor);
  }
}
