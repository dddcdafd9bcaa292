import type { Socket } from "node:net";
import type { Clock, Timer } from "../base/index.js";
import { DEAD_AFTER_MS, PING_INTERVAL_MS } from "./limits.js";

/**
 * Pings at intervals and tells when nothing was heard for too long. Any byte counts, so that a long message on a slow link
 * is a sign of life; both sides ping, so a side that only sends hears something too.
 */
export class Liveness {
  readonly #options: { socket: Socket; clock: Clock; ping: () => void; onDead: () => void };
  #timer: Timer | undefined;
  #heardBytes: number;
  #heardAtUs: number;

  constructor(options: { socket: Socket; clock: Clock; ping: () => void; onDead: () => void }) {
    this.#options = options;
    this.#heardBytes = options.socket.bytesRead;
    this.#heardAtUs = options.clock.nowUs();
    this.#later();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #later(): void {
    this.#timer = this.#options.clock.after(PING_INTERVAL_MS, () => this.#check());
  }

  #check(): void {
    const { socket, clock } = this.#options;
    if (socket.bytesRead !== this.#heardBytes) {
      this.#heardBytes = socket.bytesRead;
      this.#heardAtUs = clock.nowUs();
    }
    if (clock.nowUs() - this.#heardAtUs >= DEAD_AFTER_MS * 1000) {
      this.#timer = undefined;
      this.#options.onDead();
      return;
    }
    this.#options.ping();
    this.#later();
  }
}
