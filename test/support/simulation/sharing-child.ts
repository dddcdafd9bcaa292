import type { PageRange } from "../../../src/transfer/index.js";
import type { SimulatedMemory } from "./memory.js";
import type { Scheduler } from "./scheduler.js";

/** Where a child stands: its emulator has the memory mapped; it belongs to an instant; it runs; its process is gone. */
export type Stage = "mapped" | "joined" | "running" | "ended";

/** A child's emulator that has mapped its parent's memory privately. It outlives agents. */
export class SimulatedSharer {
  stage: Stage = "mapped";
  /** The parent's memory at the child's instant. */
  oracle: readonly Uint8Array[] = [];
  readonly #parent: SimulatedMemory;
  readonly #scheduler: Scheduler;
  readonly #own = new Map<number, Uint8Array>();
  readonly #written = new Map<number, Uint8Array>();
  readonly #atEnd: (() => void)[] = [];
  /** How many more pages the host has memory for. */
  room: number;

  constructor(options: { parent: SimulatedMemory; scheduler: Scheduler; room: number }) {
    this.#parent = options.parent;
    this.#scheduler = options.scheduler;
    this.room = options.room;
  }

  /** What the child's processors see. */
  content(page: number): Uint8Array {
    return this.#own.get(page) ?? this.#parent.content(page);
  }

  write(page: number, bytes: Uint8Array): void {
    this.#own.set(page, bytes);
    this.#written.set(page, bytes);
  }

  /** What the real one does: all of the pages that there is memory for, and false when that was not all. */
  separate({ first, count }: PageRange): boolean {
    if (this.stage === "ended") return false;
    for (let page = first; page < first + count; page += 1) {
      if (this.#own.has(page)) continue;
      if ((this.room -= 1) < 0) return false;
      this.#own.set(page, this.#parent.content(page).slice());
    }
    return true;
  }

  /** Throws when the child sees anything but what was there at its instant and what it wrote itself. */
  check(): void {
    if (this.stage !== "joined" && this.stage !== "running") return;
    for (const [page, was] of this.oracle.entries()) {
      if (Buffer.compare(this.content(page), this.#written.get(page) ?? was) !== 0)
        throw new Error(`a child sees in page ${page} what its parent wrote after the instant`);
    }
  }

  /** Its processors stop a moment after the signal, and whoever watches is told another moment later. */
  kill(): void {
    this.#scheduler.afterUs(this.#scheduler.random.below(200), () => {
      if (this.stage === "ended") return;
      this.stage = "ended";
      for (const tell of this.#atEnd.splice(0))
        this.#scheduler.afterUs(this.#scheduler.random.below(200), tell);
    });
  }

  onEnd(tell: () => void): void {
    if (this.stage === "ended") tell();
    else this.#atEnd.push(tell);
  }
}
