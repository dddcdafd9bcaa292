import { assert } from "../../../src/base/index.js";
import type { InPause } from "../../../src/transfer/index.js";
import type { Life } from "./host.js";
import type { SimulatedMemory } from "./memory.js";
import { SimulatedRefusal } from "./network.js";
import type { Scheduler } from "./scheduler.js";

/** A guest in its emulator's process, which knows nothing of agents: it takes commands one by one and runs on whoever sent them. */
export class SimulatedGuest {
  readonly memory: SimulatedMemory;
  readonly #scheduler: Scheduler;
  readonly #onRun: () => void;
  #commands: Promise<unknown> = Promise.resolve();
  #running = false;
  #exists = true;
  /** Writes that its processors have begun. A processor that waits for a page holds up the stop, as it does in the emulator. */
  writing = 0;

  constructor(options: { memory: SimulatedMemory; scheduler: Scheduler; onRun: () => void }) {
    this.memory = options.memory;
    this.#scheduler = options.scheduler;
    this.#onRun = options.onRun;
  }

  get running(): boolean {
    return this.#running;
  }

  /** False once the emulator has been killed. */
  get exists(): boolean {
    return this.#exists;
  }

  /** Runs before there was an agent to tell it to. */
  boot(): void {
    assert(!this.#running, "a guest is booted once");
    this.#running = true;
    this.#onRun();
  }

  /** Stops the processors. Answers when none of them is inside a write. */
  stop(life: Life): Promise<void> {
    return this.command(life, () => this.#stop());
  }

  resume(life: Life): Promise<void> {
    return this.command(life, () => this.#run());
  }

  /**
   * Stops, saves and runs on by itself, in one command. After the saving it is held up until the agent, in `work`, is done, or has died; what the agent throws
   * is thrown when the guest runs on.
   */
  snapshot(life: Life, work: InPause, save: () => Promise<void>): Promise<void> {
    return this.command(life, async () => {
      await this.#stop();
      try {
        const told = this.#scheduler.lag(200).then(() => void (life.alive && work.onStopped()));
        await Promise.all([told, save()]);
        await this.#scheduler.lag(200);
        const died = new Promise<void>((resolve) => life.onDeath(resolve));
        if (life.alive) await Promise.race([work.atInstant(), died]);
      } finally {
        this.#run();
      }
    });
  }

  isRunning(life: Life): Promise<boolean> {
    return this.command(life, () => this.#running);
  }

  /** A new agent lets it run, if it stands still and its emulator has not ended. */
  async runOn(life: Life): Promise<void> {
    try {
      if (!(await this.isRunning(life))) await this.resume(life);
    } catch (error) {
      if (this.#exists) throw error;
    }
  }

  /** Stopped for good, at once. */
  pause(): void {
    this.#running = false;
  }

  /** The emulator's end, which needs no command. */
  kill(): void {
    this.#exists = false;
    this.#running = false;
  }

  async #stop(): Promise<void> {
    this.#running = false;
    while (this.writing > 0) await this.#scheduler.lag(400);
  }

  #run(): void {
    if (this.#running || !this.#exists) return;
    this.#running = true;
    this.#onRun();
  }

  /** A command that was sent is carried out, in its turn, even when nobody is left to hear the answer. */
  command<T>(life: Life, run: () => T | Promise<T>): Promise<T> {
    if (!life.acts()) return life.never();
    const carried = this.#commands.then(async () => {
      await this.#scheduler.lag(400);
      if (!this.#exists) throw new SimulatedRefusal("failed", "the emulator has ended");
      return run();
    });
    this.#commands = carried.catch(() => {});
    return life.hear(carried);
  }
}
