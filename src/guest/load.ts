import type { Socket } from "node:net";
import { deferred, withDeadline, type Clock } from "../base/index.js";
import { connectToEmulator } from "./own-socket.js";

/** The way of a device state into an emulator that waits for it on a socket. Whoever opens it ends or closes it. */
export class StateChannel {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #closed = deferred<void>();

  /** @param options.path the emulator's socket. */
  constructor(options: { path: string; clock: Clock }) {
    this.#clock = options.clock;
    this.#socket = connectToEmulator(options.path);
    this.#socket.once("error", (error) => this.#closed.reject(error));
    this.#socket.once("close", () => this.#closed.resolve());
    this.#socket.resume();
    // It is told by `end`.
    this.#closed.promise.catch(() => {});
  }

  /** Sends bytes of a state that more will follow. Resolves when the emulator has them but for what a socket holds. Rejects as `end` does. */
  async write(bytes: Uint8Array, deadlineMs: number): Promise<void> {
    const written = deferred<void>();
    this.#socket.write(bytes, (error) =>
      error instanceof Error ? written.reject(error) : written.resolve(),
    );
    await withDeadline(this.#clock, deadlineMs, "the sending of the device state", written.promise);
  }

  /**
   * Sends the last bytes. Resolves when the emulator has ended the connection: it has then read what it wanted, well or badly. Rejects with the
   * socket's error or DeadlineError.
   */
  async end(bytes: Uint8Array, deadlineMs: number): Promise<void> {
    this.#socket.end(bytes);
    try {
      await withDeadline(this.#clock, deadlineMs, "the reading of the device state", this.#closed.promise);
    } finally {
      this.close();
    }
  }

  /** May be called twice. */
  close(): void {
    this.#socket.destroy();
  }
}
