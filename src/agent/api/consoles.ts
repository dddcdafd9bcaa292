import { MAX_CONSOLE_BYTES, type RpcServerSession } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";

/** Most consoles one connection may have open. */
const MAX_OPEN_CONSOLES = 64;

interface OpenConsole {
  guest: Guest;
  input(bytes: Uint8Array): Promise<void>;
  unfollow(): void;
}

/** The consoles that connections have open, by the numbers they were given. */
export class Consoles {
  readonly #open = new Map<RpcServerSession, Map<number, OpenConsole>>();
  /** By connection: none learns from its numbers what others have open. */
  readonly #lastNumbers = new WeakMap<RpcServerSession, number>();

  /** Sends the guest's console to the connection from now on. @throws AgentError, GuestError. */
  async open(guest: Guest, session: RpcServerSession): Promise<number> {
    const consoles = this.#of(session);
    if (consoles.size >= MAX_OPEN_CONSOLES) {
      throw new AgentError(
        "refused",
        `this connection has ${MAX_OPEN_CONSOLES} consoles open, the most it may`,
      );
    }
    const number = ((this.#lastNumbers.get(session) ?? 0) % 0xffffffff) + 1;
    this.#lastNumbers.set(session, number);
    const hub = guest.live.console;
    const unfollow = await hub.follow({
      onData: (bytes) => {
        for (let first = 0; first < bytes.length; first += MAX_CONSOLE_BYTES) {
          session.sendEvent("console", {
            console: number,
            data: bytes.subarray(first, first + MAX_CONSOLE_BYTES),
          });
        }
      },
      onEnd: (why) => {
        consoles.delete(number);
        session.sendEvent("console", { console: number, data: new Uint8Array(0), end: why });
      },
    });
    consoles.set(number, { guest, input: (bytes) => hub.input(bytes), unfollow });
    // The connection may have ended while the console was opened.
    if (this.#open.get(session) !== consoles) unfollow();
    return number;
  }

  async input(session: RpcServerSession, number: number, bytes: Uint8Array): Promise<void> {
    await this.#find(session, number).input(bytes);
  }

  close(session: RpcServerSession, number: number): void {
    this.#find(session, number).unfollow();
    this.#open.get(session)?.delete(number);
  }

  #of(session: RpcServerSession): Map<number, OpenConsole> {
    const known = this.#open.get(session);
    if (known !== undefined) return known;
    const consoles = new Map<number, OpenConsole>();
    this.#open.set(session, consoles);
    session.onEnd(() => {
      this.#open.delete(session);
      for (const { unfollow } of consoles.values()) unfollow();
    });
    return consoles;
  }

  #find(session: RpcServerSession, number: number): OpenConsole {
    const console = this.#open.get(session)?.get(number);
    if (console !== undefined) return console;
    throw new AgentError("bad-request", `this connection has no console ${number} open`);
  }
}
