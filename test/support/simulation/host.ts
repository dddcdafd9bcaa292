import type { Clock } from "../../../src/base/index.js";
import type { Scheduler } from "./scheduler.js";

/** Longest time an agent is away, in µs: so short that nobody notices, or long enough for everybody to have dialled in vain. */
const AWAY_US = [50, 2000, 150_000];
/** Longest time a new agent takes to find out what it has, in µs. */
const LOOKING_US = [400, 400, 80_000];
/** After a crash, the next may come within so many acts: while the new agent still recovers. */
const SOON_ACTS = 12;

/**
 * One agent's process, from its start to its crash. What outlives it asks it before everything it does to the world: after its death nothing it still
 * computes has an effect, none of its timers fires, and nothing it waits for ever comes.
 */
export class Life {
  readonly clock: Clock;
  readonly number: number;
  readonly #count: () => void;
  readonly #scheduler: Scheduler;
  readonly #atDeath: (() => void)[] = [];
  #alive = true;

  constructor(options: { number: number; scheduler: Scheduler; count: () => void }) {
    const { scheduler } = options;
    this.number = options.number;
    this.#scheduler = scheduler;
    this.#count = options.count;
    const living = (run: () => void) => (): void => void (this.#alive && run());
    this.clock = {
      nowUs: () => scheduler.nowUs(),
      wallMs: () => scheduler.wallMs(),
      after: (delayMs, run) => scheduler.after(delayMs, living(run)),
      soon: (run) => scheduler.soon(living(run)),
    };
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Asked before each act on the world, which may be where the crash comes. False means that the act does not take place. */
  acts(): boolean {
    if (this.#alive) this.#count();
    return this.#alive;
  }

  /** Waits as long as a new agent takes to find out what there is, which may be long. */
  look(): Promise<void> {
    return this.lag(this.#scheduler.random.pick(LOOKING_US));
  }

  /** What a promise of the world's comes to, as long as there is somebody to hear it. */
  hear<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => void (this.#alive && resolve(value)),
        (error: unknown) => void (this.#alive && reject(error)),
      );
    });
  }

  /** Waits as everything does that crosses a process or a network; for ever when the death comes first. */
  lag(longestUs = 400): Promise<void> {
    return this.hear(this.#scheduler.lag(longestUs));
  }

  /** What one waits for who is not answered. */
  never(): Promise<never> {
    return new Promise(() => {});
  }

  onDeath(run: () => void): void {
    if (this.#alive) this.#atDeath.push(run);
    else run();
  }

  die(): void {
    this.#alive = false;
    for (const run of this.#atDeath.splice(0)) run();
  }
}

/** A host's agent, which may crash at any act of any of its lives, and is started again a while later. */
export class SimulatedHost {
  readonly name: string;
  readonly #scheduler: Scheduler;
  readonly #parts: ((life: Life) => void)[] = [];
  /** Numbers of acts that are not lived to see, and how often the agent may crash again after each. */
  readonly #crashAt = new Map<number, number>();
  #life: Life | undefined;
  /** Acts and crashes of all its lives. */
  acts = 0;
  crashes = 0;

  constructor(name: string, scheduler: Scheduler) {
    this.name = name;
    this.#scheduler = scheduler;
  }

  /** The agent's process; undefined while there is none. */
  get life(): Life | undefined {
    return this.#life;
  }

  /** Something the agent does from its start on, with what an earlier life has left. */
  add(part: (life: Life) => void): void {
    this.#parts.push(part);
  }

  start(): void {
    const number = this.crashes + 1;
    const life = new Life({ number, scheduler: this.#scheduler, count: () => this.#count() });
    this.#life = life;
    for (const part of this.#parts) if (life.alive) part(life);
  }

  /** Lets the agent crash where its act of that number would be, counted over all its lives, and perhaps so many times again while it recovers. */
  crashAtAct(act: number, mayCrashAgain = 0): void {
    this.#crashAt.set(act, mayCrashAgain);
  }

  /** Crashes the agent now, and perhaps so many times again while it recovers. */
  crash(mayCrashAgain = 0): void {
    const life = this.#life;
    if (life === undefined) return;
    const { random } = this.#scheduler;
    this.crashes += 1;
    this.#life = undefined;
    life.die();
    if (mayCrashAgain > 0 && random.chance(0.5))
      this.crashAtAct(this.acts + 1 + random.below(SOON_ACTS), mayCrashAgain - 1);
    this.#scheduler.afterUs(random.below(random.pick(AWAY_US)), () => this.start());
  }

  #count(): void {
    this.acts += 1;
    const again = this.#crashAt.get(this.acts);
    if (again !== undefined) this.crash(again);
  }
}
