import { realClock, withDeadline } from "../../src/base/index.js";

/** Long enough that only a fault that never comes reaches it. */
const FAULT_DEADLINE_MS = 20_000;

/** Collects reported faults and waits for them. Give `report` to `track` or `fill`. */
export class FaultLog {
  /** Every page reported, in order, repeats included. */
  readonly pages: number[] = [];
  #onReport: () => void = () => {};

  readonly report = (pages: readonly number[]): void => {
    this.pages.push(...pages);
    this.#onReport();
  };

  /** Resolves when `page` has been reported `times` times. */
  async reported(page: number, times = 1): Promise<void> {
    const enough = (): boolean => this.pages.filter((one) => one === page).length >= times;
    const done = new Promise<void>((resolve) => {
      const check = (): void => (enough() ? resolve() : undefined);
      this.#onReport = check;
      check();
    });
    await withDeadline(realClock, FAULT_DEADLINE_MS, `the fault at page ${page}`, done);
    this.#onReport = () => {};
  }
}
