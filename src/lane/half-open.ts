import type { Socket } from "node:net";
import type { Clock, Timer } from "../base/index.js";
import { HANDSHAKE_DEADLINE_MS, MAX_HALF_OPEN } from "./limits.js";

/**
 * Connections that have not proved anything yet. Each has a deadline, and there is a most of them; when one more comes, the
 * oldest goes: a real handshake takes milliseconds, so whoever floods throws out himself.
 */
export class HalfOpen {
  readonly #clock: Clock;
  readonly #deadlines = new Map<Socket, Timer>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get count(): number {
    return this.#deadlines.size;
  }

  add(socket: Socket): void {
    const oldest = this.#deadlines.size >= MAX_HALF_OPEN ? this.#deadlines.keys().next().value : undefined;
    if (oldest !== undefined) {
      this.remove(oldest);
      oldest.destroy();
    }
    this.#deadlines.set(
      socket,
      this.#clock.after(HANDSHAKE_DEADLINE_MS, () => {
        this.remove(socket);
        socket.destroy();
      }),
    );
    socket.once("close", () => this.remove(socket));
  }

  /** Destroys them all. */
  clear(): void {
    for (const socket of [...this.#deadlines.keys()]) {
      this.remove(socket);
      socket.destroy();
    }
  }

  remove(socket: Socket): void {
    this.#deadlines.get(socket)?.cancel();
    this.#deadlines.delete(socket);
  }
}
