import type { Console, Emulator } from "../../guest/index.js";

/** Who follows a console. `onEnd` comes once, when there will be no more. */
export interface ConsoleListener {
  onData(bytes: Uint8Array): void;
  onEnd(why: string): void;
}

/**
 * A guest's serial console, which the emulator gives to one at a time, for any number of people. It is opened for the first and closed
 * after the last. The emulator itself writes console.log, whether or not an agent is there. It goes on in the emulator that takes over from the guest's one.
 */
export class ConsoleHub {
  #emulator: Emulator;
  readonly #listeners = new Set<ConsoleListener>();
  #console: Promise<Console> | undefined;
  /** That of the emulator which is to take over. */
  #prepared: { emulator: Emulator; console: Console } | undefined;

  constructor(emulator: Emulator) {
    this.#emulator = emulator;
  }

  /** Follows the console from now on. Returns what ends that. @throws GuestError when it cannot be opened. */
  async follow(listener: ConsoleListener): Promise<() => void> {
    this.#listeners.add(listener);
    try {
      this.#console ??= this.#open(this.#emulator);
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

  /**
   * Opens the console of the emulator that is to take over, where somebody follows, so that nothing the guest says there is missed. It ends with that emulator.
   * @throws GuestError.
   */
  async prepare(emulator: Emulator): Promise<void> {
    this.#prepared = undefined;
    if (this.#listeners.size > 0) this.#prepared = { emulator, console: await this.#open(emulator) };
  }

  /** Goes on in the emulator that has taken over. What the former one has still to say comes until it ends. */
  switchTo(emulator: Emulator): void {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    this.#emulator = emulator;
    if (this.#console === undefined) return prepared?.console.close();
    this.#console =
      prepared?.emulator === emulator ? Promise.resolve(prepared.console) : this.#open(emulator);
    this.#console.catch(() => this.end("the console of the emulator that took over could not be opened"));
  }

  /** Everyone who follows is told why there will be no more. May be called twice. */
  end(why: string): void {
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    this.#closeConsole();
    for (const listener of listeners) listener.onEnd(why);
  }

  #open(emulator: Emulator): Promise<Console> {
    return emulator.openConsole({
      onData: (bytes) => {
        for (const listener of [...this.#listeners]) listener.onData(bytes);
      },
      // That of one which another has taken over from, or never came to, is of no concern.
      onEnd: () => this.#emulator === emulator && this.end("the console was closed"),
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
