import { assert, messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import { bootFilesOf } from "./guest-record.js";
import { specKey, type ChildSpec } from "./child-spec.js";
import type { LiveEmulator } from "./live-emulator.js";

/** How often idle emulators are looked for. */
const IDLE_CHECK_MS = 5000;

/** A taken emulator is replaced so much later: starting one takes a whole processor for about 100 ms, which the child that starts just now needs. */
const REFILL_DELAY_MS = 1000;

/** And so much later for each one that lacks: under TCG, that is about what each child of one fork needs of a processor until it has answered something. */
const REFILL_DELAY_EACH_MS = 100;

interface Shelf {
  spec: ChildSpec;
  /** How many to keep ready. */
  wanted: number;
  ready: LiveEmulator[];
  filling: Promise<void> | undefined;
  refill: Timer | undefined;
  usedAtUs: number;
}

/**
 * Emulators that wait for device state, so that a child need not wait for its emulator (75–115 ms). Kept only for specs somebody asked to keep
 * warm, within a bound, and not for ever: what nobody used for the idle time is ended.
 */
export class EmulatorPool {
  readonly #start: (spec: ChildSpec) => Promise<LiveEmulator>;
  readonly #discard: (live: LiveEmulator) => Promise<void>;
  readonly #bound: number;
  readonly #idleMs: number;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #shelves = new Map<string, Shelf>();
  #starting = 0;
  #idleTimer: Timer | undefined;
  #closed = false;

  constructor(options: {
    start: (spec: ChildSpec) => Promise<LiveEmulator>;
    /** Ends an emulator, if it has not ended, and removes all of it. */
    discard: (live: LiveEmulator) => Promise<void>;
    bound: number;
    idleMs: number;
    clock: Clock;
    log: Log;
  }) {
    this.#start = options.start;
    this.#discard = options.discard;
    this.#bound = options.bound;
    this.#idleMs = options.idleMs;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Emulators ready now. */
  get size(): number {
    return [...this.#shelves.values()].reduce((sum, shelf) => sum + shelf.ready.length, 0);
  }

  /** Digests of the boot files that ready emulators were started with. */
  get digests(): string[] {
    return [...this.#shelves.values()].flatMap(({ spec }) => bootFilesOf(spec).map(({ sha256 }) => sha256));
  }

  /**
   * Keeps up to `count` emulators of a spec ready from now on, 0 for none, and starts those that lack.
   * @returns how many are ready; fewer than asked for when the bound does not allow more. Rejects when the first cannot be started.
   */
  async warm(spec: ChildSpec, count: number): Promise<number> {
    const key = specKey(spec);
    const shelf: Shelf = this.#shelves.get(key) ?? {
      spec,
      wanted: 0,
      ready: [],
      filling: undefined,
      refill: undefined,
      usedAtUs: 0,
    };
    shelf.wanted = count;
    shelf.usedAtUs = this.#clock.nowUs();
    if (count > 0) this.#shelves.set(key, shelf);
    const surplus = shelf.ready.splice(count);
    await Promise.all(surplus.map((live) => this.#discard(live)));
    shelf.refill?.cancel();
    if (count === 0) {
      this.#shelves.delete(key);
      // One that is being started is ended as soon as it is there.
      await shelf.filling?.catch(() => {});
    } else await this.#fill(shelf);
    this.#watchIdle();
    return shelf.ready.length;
  }

  /** Takes a ready emulator, if there is one, and has another started in its place. */
  take(spec: ChildSpec): LiveEmulator | undefined {
    const shelf = this.#shelves.get(specKey(spec));
    if (shelf === undefined) return undefined;
    shelf.usedAtUs = this.#clock.nowUs();
    const live = shelf.ready.shift();
    if (live !== undefined) this.#fillLater(shelf);
    return live;
  }

  /** Ends ready emulators, those of the spec used longest ago first, until `enough` says so or none is left. */
  async evictUntil(enough: () => boolean): Promise<void> {
    const shelves = [...this.#shelves.values()].toSorted((left, right) => left.usedAtUs - right.usedAtUs);
    for (const shelf of shelves) {
      while (shelf.ready.length > 0 && !enough()) {
        // What had to make room is not started again at once.
        shelf.wanted = shelf.ready.length - 1;
        await this.#discard(shelf.ready.pop() as LiveEmulator);
      }
    }
  }

  /** Ends all of them. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.cancel();
    const shelves = [...this.#shelves.values()];
    this.#shelves.clear();
    for (const shelf of shelves) {
      shelf.wanted = 0;
      shelf.refill?.cancel();
    }
    await Promise.all(shelves.map(async (shelf) => shelf.filling?.catch(() => {})));
    await Promise.all(shelves.flatMap((shelf) => shelf.ready.splice(0).map((live) => this.#discard(live))));
  }

  /** One filling of a shelf at a time; whoever asks meanwhile waits for it, then looks again. */
  async #fill(shelf: Shelf): Promise<void> {
    while (shelf.filling !== undefined) await shelf.filling.catch(() => {});
    shelf.filling = this.#startMissing(shelf);
    try {
      await shelf.filling;
    } finally {
      shelf.filling = undefined;
    }
  }

  async #startMissing(shelf: Shelf): Promise<void> {
    while (!this.#closed && shelf.ready.length < shelf.wanted && this.size + this.#starting < this.#bound) {
      const live = await this.#startOne(shelf.spec);
      shelf.ready.push(live);
      void live.exited.then(async () => {
        const index = shelf.ready.indexOf(live);
        if (index === -1) return;
        shelf.ready.splice(index, 1);
        this.#log.warn({ id: live.id }, "a warm emulator ended by itself");
        await this.#discard(live);
      });
    }
    if (this.#closed || shelf.wanted === 0)
      await Promise.all(shelf.ready.splice(0).map((live) => this.#discard(live)));
    assert(shelf.ready.length <= Math.max(shelf.wanted, this.#bound), "a shelf holds what was wanted");
  }

  /** One that is being started counts towards the bound, whichever shelf it is for. */
  async #startOne(spec: ChildSpec): Promise<LiveEmulator> {
    this.#starting += 1;
    try {
      return await this.#start(spec);
    } finally {
      this.#starting -= 1;
    }
  }

  #fillLater(shelf: Shelf): void {
    shelf.refill?.cancel();
    const lacking = Math.max(0, shelf.wanted - shelf.ready.length);
    shelf.refill = this.#clock.after(REFILL_DELAY_MS + lacking * REFILL_DELAY_EACH_MS, () => {
      this.#fill(shelf).catch((error: unknown) => {
        this.#log.warn({ problem: messageOf(error) }, "a warm emulator could not be started");
      });
    });
  }

  #watchIdle(): void {
    if (this.#closed || this.#shelves.size === 0) return;
    this.#idleTimer ??= this.#clock.after(IDLE_CHECK_MS, () => {
      this.#idleTimer = undefined;
      for (const [key, shelf] of this.#shelves) {
        if (this.#clock.nowUs() - shelf.usedAtUs < this.#idleMs * 1000 || shelf.filling !== undefined)
          continue;
        this.#shelves.delete(key);
        shelf.wanted = 0;
        shelf.refill?.cancel();
        for (const live of shelf.ready.splice(0)) {
          this.#discard(live).catch((error: unknown) =>
            this.#log.warn({ problem: messageOf(error) }, "an idle emulator could not be ended"),
          );
        }
      }
      this.#watchIdle();
    });
  }
}
