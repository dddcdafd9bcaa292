import { rmSync } from "node:fs";
import { withDeadline, type Clock } from "../base/index.js";
import { machineOf } from "./device-state.js";
import { GuestError } from "./errors.js";
import { StateChannel } from "./load.js";
import type { LoadOutcome } from "./run-state.js";

/** Gives an emulator that was started with `incoming` the device state it waits for. */
export class DeviceStateLoader {
  readonly #machine: string;
  readonly #socket: string;
  readonly #clock: Clock;
  #channel: StateChannel | undefined;
  #onOutcome: (outcome: LoadOutcome) => void = () => {};

  /** @param options.socket where the emulator takes the state. */
  constructor(options: { machine: string; socket: string; clock: Clock }) {
    this.#machine = options.machine;
    this.#socket = options.socket;
    this.#clock = options.clock;
  }

  /** To be called when the emulator says how loading went, or has ended. */
  note(outcome: LoadOutcome): void {
    this.#onOutcome(outcome);
  }

  /** Makes the emulator wait for a state, by `execute`; saves a round trip when the state arrives. */
  async expect(execute: (command: string, args: object) => Promise<unknown>): Promise<void> {
    rmSync(this.#socket, { force: true });
    await execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
    await execute("migrate-incoming", { uri: `unix:${this.#socket}` });
  }

  /** Gives it the first part of a state; `load` then takes the rest. @throws GuestError `bad-device-state`, DeadlineError or the socket's error. */
  async begin(head: Uint8Array, deadlineMs: number): Promise<void> {
    this.#channel?.close();
    this.#channel = this.#open(head);
    await this.#channel.write(head, deadlineMs);
  }

  /** @throws GuestError `load-failed` or `bad-device-state`, DeadlineError or the socket's error. */
  async load(state: Uint8Array, deadlineMs: number): Promise<void> {
    const channel = this.#channel ?? this.#open(state);
    this.#channel = undefined;
    const outcome = new Promise<LoadOutcome>((resolve) => {
      this.#onOutcome = resolve;
    });
    // That the connection has ended says no more than this, and comes later.
    const closed = channel.end(state, deadlineMs).finally(() => rmSync(this.#socket, { force: true }));
    const result = await withDeadline(
      this.#clock,
      deadlineMs,
      "the loading of the device state",
      Promise.race([outcome, closed.then(() => outcome)]),
    );
    if (result === "failed") throw new GuestError("load-failed", "the emulator refused it");
  }

  /** Lets go of a state that was begun and will have no end. May be called twice. */
  close(): void {
    this.#channel?.close();
    this.#channel = undefined;
  }

  /** The way in for a state that begins so. */
  #open(start: Uint8Array): StateChannel {
    const machine = machineOf(start);
    if (machine !== this.#machine) {
      const message = `the device state is of a guest with machine type ${machine}, and this emulator was started as ${this.#machine}`;
      throw new GuestError("bad-device-state", message);
    }
    return new StateChannel({ path: this.#socket, clock: this.#clock });
  }
}
