import { assert } from "../../base/index.js";

interface Queue {
  underWay: number;
  readonly waiting: (() => void)[];
}

/** Lets work of one kind be done by a few at a time, in the order in which it came. Work of different keys does not wait for each other. */
export class Turns {
  readonly #most: number;
  readonly #queues = new Map<string, Queue>();

  /** @param most how much of one key is under way at a time. */
  constructor(most: number) {
    assert(most > 0, "some work can be done");
    this.#most = most;
  }

  /** Does the work when it is its turn. Settles as the work does. */
  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(key) ?? { underWay: 0, waiting: [] };
    this.#queues.set(key, queue);
    if (queue.underWay < this.#most) queue.underWay += 1;
    else await new Promise<void>((resolve) => queue.waiting.push(resolve));
    try {
      return await work();
    } finally {
      // The turn goes to the next one, or is over.
      const next = queue.waiting.shift();
      if (next !== undefined) next();
      else queue.underWay -= 1;
      if (queue.underWay === 0) this.#queues.delete(key);
    }
  }
}
