import { readdirSync, readFileSync } from "node:fs";
import { realClock, sleep } from "../../src/base/index.js";
import { emulatorsBelow } from "../support/hosts.js";

const AT_ONCE_US = 20_000;
const SAMPLE_MS = 100;
/** A processor's time is counted in hundredths of a second (proc(5)); one may be the clock's own rounding. */
const RUNNING_TICKS = 2;

/** What the kernel says is registered in an emulator: `um` for missing pages, `uw` for protected ones (proc(5), VmFlags). */
export function registrationsOf(pid: number): number {
  const flags = readFileSync(`/proc/${pid}/smaps`, "utf8").match(/^VmFlags:.*$/gm) ?? [];
  return flags.filter((line) => /\b(um|uw)\b/.test(line)).length;
}

/** Processor time that a guest itself has had: that of its emulator's processor threads. Undefined when it has ended. */
function guestTicks(pid: number): number | undefined {
  try {
    let ticks = 0;
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
      if (!/\(CPU \d+\/(TCG|KVM)\)/.test(stat)) continue;
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      ticks += Number(fields[11]) + Number(fields[12]);
    }
    return ticks;
  } catch {
    return undefined;
  }
}

/**
 * Looks whether two emulators of one migrated guest ever run at the same time, by the processor time they take; it asks no agent. In the sample in which the
 * guest switches both take some, so only two samples in a row tell.
 */
export class TwinWatch {
  readonly #directory: string;
  readonly #parent: number;
  readonly #others: ReadonlySet<number>;
  #going = true;
  #together = 0;
  #twins = false;
  readonly #done: Promise<void>;

  /** @param options.directory what the emulators' command lines name. */
  constructor(options: { directory: string; parent: number }) {
    this.#directory = options.directory;
    this.#parent = options.parent;
    this.#others = new Set(emulatorsBelow(options.directory));
    this.#done = this.#watch();
  }

  /** Ends the watch. True when both ran. */
  async end(): Promise<boolean> {
    this.#going = false;
    await this.#done;
    return this.#twins;
  }

  async #watch(): Promise<void> {
    let before = new Map<number, number>();
    while (this.#going) {
      const beganUs = realClock.nowUs();
      const now = this.#sample();
      // Samples that are not of one moment may have the parent before a switch and the child after it.
      const atOnce = realClock.nowUs() - beganUs < AT_ONCE_US;
      const ran = (pid: number): boolean =>
        before.has(pid) && (now.get(pid) ?? 0) - (before.get(pid) ?? 0) >= RUNNING_TICKS;
      const childRan = [...now.keys()].some((pid) => pid !== this.#parent && ran(pid));
      this.#together = atOnce && ran(this.#parent) && childRan ? this.#together + 1 : 0;
      if (this.#together >= 2) this.#twins = true;
      before = now;
      await sleep(realClock, SAMPLE_MS);
    }
  }

  #sample(): Map<number, number> {
    const children = emulatorsBelow(this.#directory).filter((pid) => !this.#others.has(pid));
    const samples = new Map<number, number>();
    for (const pid of [this.#parent, ...children]) {
      const ticks = guestTicks(pid);
      if (ticks !== undefined) samples.set(pid, ticks);
    }
    return samples;
  }
}
