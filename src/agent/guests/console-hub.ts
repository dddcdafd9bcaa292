import type { Console, Emulator } from "../../guest/index.js";

/** Who follows a console. `onEnd` comes once, when there will be no more. */
export interface ConsoleListener {
  onData(bytes: Uint8Array): void;
  onEnd(why: string): void;
}

/**
 * A guest's serial console, which the emulator gives to one at a time, for any number of people. It is opened for the first and closed
 * after the last. The emulator itself writes console.log, whether or not an agent is there.
 */
export class ConsoleHub {
  readonly #emulator: Emulator;
  readonly #listeners = new Set<ConsoleListener>();
  #console: Promise<Console> | undefined;

  constructor(emulator: Emulator) {
    this.#emulator = emulator;
  }

  /** Follows the console from now on. Returns what ends that. @throws GuestError when it cannot be opened. */
  async follow(listener: ConsoleListener): Promise<() => void> {
    this.#listeners.add(listener);
    try {
      this.#console ??= this.#open();
      await this.#console;
    } catch (error) {
      this.#listeners.delete(listener);
      this.#console = undefined;
      throw error;
    }
    return () => this.#unfollow(listener);
  }

  /** Types into the console; dropped when nobody has it open. */
  async input(bytes: Uint8Array): Promise<void> {
    (await this.#console)?.write(bytes);
  }

  /** Everyone who follows is told why there will be no more. May be called twice. */
  end(why: string): void {
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    this.#closeConsole();
    for (const listener of listeners) listener.onEnd(why);
  }

  #open(): Promise<Console> {
    return this.#emulator.openConsole({
      onData: (bytes) => {
        for (const listener of [...this.#listeners]) listener.onData(bytes);
      },
      onEnd: () => this.end("the console was closed"),
    });
  }

  #unfollow(listener: ConsoleListener): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size === 0) this.#closeConsole();
  }

  #closeConsole(): void {
    const opened = this.#console;
    this.#console = undefined;
    opened?.then(
      (console) => console.close(),
      () => {},
    );
  }
}
