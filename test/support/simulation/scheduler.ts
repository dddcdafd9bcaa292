import type { Clock, SeededRandom, Timer } from "../../../src/base/index.js";

interface Event {
  atUs: number;
  order: number;
  run: (() => void) | undefined;
}

/** Virtual time under a seed: events run one at a time, those of the same moment in an order the seed decides. */
export class Scheduler implements Clock {
  readonly random: SeededRandom;
  readonly #heap: Event[] = [];
  #nowUs = 0;
  #problem: Error | undefined;
  ran = 0;
  /** Called after every event; throws when something is not as it always must be. */
  checkInvariants: () => void = () => {};

  constructor(random: SeededRandom) {
    this.random = random;
  }

  /** True when nothing is left to happen. */
  get idle(): boolean {
    return this.#heap.length === 0;
  }

  nowUs(): number {
    return this.#nowUs;
  }

  wallMs(): number {
    return Math.floor(this.#nowUs / 1000);
  }

  after(delayMs: number, run: () => void): Timer {
    return this.afterUs(delayMs * 1000, run);
  }

  soon(run: () => void): Timer {
    return this.afterUs(this.random.below(20), run);
  }

  afterUs(delayUs: number, run: () => void): Timer {
    const event: Event = { atUs: this.#nowUs + delayUs, order: this.random.next(), run };
    this.#push(event);
    return { cancel: () => void (event.run = undefined) };
  }

  /** Something that must never be has been seen: the run ends with it. */
  fail(problem: unknown): void {
    this.#problem ??= problem instanceof Error ? problem : new Error(String(problem));
  }

  /** Lets some time pass, at most `longestUs`, as everything that crosses a process or a network does. */
  lag(longestUs: number): Promise<void> {
    return new Promise((resolve) => this.afterUs(this.random.below(longestUs), resolve));
  }

  /** Runs events until `done` says so. Throws when nothing is left to happen, or too much happened: both mean that somebody waits in vain. */
  async runUntil(done: () => boolean, maxEvents: number): Promise<void> {
    while (!done()) {
      const event = this.#pop();
      if (event === undefined) throw new Error("nothing is left to happen, and somebody still waits");
      this.#nowUs = Math.max(this.#nowUs, event.atUs);
      if (event.run === undefined) continue;
      this.ran += 1;
      if (this.ran > maxEvents) throw new Error(`no end after ${maxEvents} events`);
      event.run();
      // Everything that was waiting for this event runs before the next one.
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (this.#problem !== undefined) throw this.#problem;
      this.checkInvariants();
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!before(event, heap[parent] as Event)) break;
      heap[index] = heap[parent] as Event;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      if (!before(heap[child] as Event, last)) break;
      heap[index] = heap[child] as Event;
      index = child;
    }
    heap[index] = last;
    return top;
  }
}

function before(left: Event, right: Event): boolean {
  return left.atUs !== right.atUs ? left.atUs < right.atUs : left.order < right.order;
}
