import { assert } from "./assert.js";

/** A first-in, first-out queue that never holds more than its bound. Taking is constant time. */
export class BoundedQueue<T> {
  readonly bound: number;
  readonly #items: (T | undefined)[] = [];
  #head = 0;

  constructor(bound: number) {
    assert(
      Number.isSafeInteger(bound) && bound > 0,
      `a queue's bound is a positive whole number, not ${bound}`,
    );
    this.bound = bound;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  /** Adds an item; false, and nothing added, when the queue is full. */
  offer(item: T): boolean {
    if (this.length >= this.bound) return false;
    this.#items.push(item);
    return true;
  }

  /** Takes the oldest item; undefined when there is none. */
  take(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined;
    this.#head += 1;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** The oldest item, left where it is. */
  peek(): T | undefined {
    return this.#items[this.#head];
  }

  clear(): void {
    this.#items.length = 0;
    this.#head = 0;
  }
}
