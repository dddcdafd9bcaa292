import type { Clock, Timer } from "../base/index.js";

/** A child that is given nothing by its relay for so long is sent everything by its parent. */
const PATIENCE_MS = 2000;

export interface RelayHoldOptions {
  clock: Clock;
  /** Pages the child was given by anything but answers to its requests. */
  given(): number;
  /** Whether there is anything the parent would send if it did not hold back. */
  isDue(): boolean;
  /** The parent holds back no longer. */
  onRelease(): void;
}

/**
 * Whether a parent holds back its sweep and pushes for a child, because another child passes on what it is given. It does so on the child's own word, which holds
 * for an epoch at the most, and only for as long as the child's pages become more.
 */
export class RelayHold {
  readonly #options: RelayHoldOptions;
  #holding = false;
  #watch: Timer | undefined;

  constructor(options: RelayHoldOptions) {
    this.#options = options;
  }

  get holding(): boolean {
    return this.#holding;
  }

  /** Holds back from here on. */
  hold(): void {
    this.#holding = true;
    this.#look();
  }

  /** Holds back no longer; the child may say otherwise later. */
  release(): void {
    this.#watch?.cancel();
    this.#watch = undefined;
    if (!this.#holding) return;
    this.#holding = false;
    this.#options.onRelease();
  }

  #look(): void {
    this.#watch?.cancel();
    const before = this.#options.isDue() ? this.#options.given() : undefined;
    this.#watch = this.#options.clock.after(PATIENCE_MS, () => {
      const stuck = before !== undefined && this.#options.isDue() && this.#options.given() <= before;
      if (stuck) this.release();
      else this.#look();
    });
  }
}
