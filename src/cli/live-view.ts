import type { Clock, Timer } from "../base/index.js";
import type { Output } from "./environment.js";

/** Shortest time between two paintings: more often than a person sees is only work for the terminal. */
const REPAINT_MS = 100;

const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const CLEAR_LINE = "\x1b[2K";
const CLEAR_BELOW = "\x1b[0J";

/** A few lines at the end of a terminal's output that are painted over in place. */
export class LiveView {
  readonly #output: Output;
  readonly #clock: Clock;
  #painted = 0;
  #lines: readonly string[] = [];
  #timer: Timer | undefined;
  #lastMs = Number.NEGATIVE_INFINITY;
  #open = false;

  constructor(output: Output, clock: Clock) {
    this.#output = output;
    this.#clock = clock;
  }

  /** How many lines fit. The last row is the cursor's. */
  get rows(): number {
    return Math.max(1, this.#output.rows - 1);
  }

  /** Shows these lines instead of the earlier ones, soon. Those that do not fit are left out. */
  show(lines: readonly string[]): void {
    this.#lines = lines;
    if (this.#timer) return;
    const waitMs = this.#lastMs + REPAINT_MS - this.#clock.nowUs() / 1000;
    if (waitMs <= 0) this.#paint();
    else {
      this.#timer = this.#clock.after(waitMs, () => {
        this.#timer = undefined;
        this.#paint();
      });
    }
  }

  /** Writes lines that stay, above the ones that change. */
  say(lines: readonly string[]): void {
    this.#erase();
    this.#output.write(lines.map((line) => `${line}\n`).join(""));
    if (this.#open) this.#paint();
  }

  /** Paints what was last shown, or removes it, and gives the cursor back. May be called twice. */
  close(options: { keep: boolean }): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (!this.#open) return;
    if (options.keep) this.#paint();
    else this.#erase();
    this.#open = false;
    this.#output.write(SHOW_CURSOR);
  }

  #paint(): void {
    this.#lastMs = this.#clock.nowUs() / 1000;
    const visible = this.#lines.slice(0, this.rows);
    const up = this.#painted === 0 ? "" : `\x1b[${this.#painted}A`;
    const start = this.#open ? up : HIDE_CURSOR;
    this.#open = true;
    this.#output.write(`${start}\r${visible.map((line) => `${CLEAR_LINE}${line}\n`).join("")}${CLEAR_BELOW}`);
    this.#painted = visible.length;
  }

  #erase(): void {
    if (this.#painted > 0) this.#output.write(`\x1b[${this.#painted}A\r${CLEAR_BELOW}`);
    this.#painted = 0;
  }
}
