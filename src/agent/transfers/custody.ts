import type { Clock, Timer } from "../../base/index.js";
import type { RpcServerSession } from "../../control/index.js";

/** A child that nobody started in this time after its parent's agent was last heard of is removed. */
const ABANDONED_MS = 20_000;

export interface CustodyOptions {
  clock: Clock;
  /** Whether the child still belongs to who commands it. */
  isAbandonable(): boolean;
  onAbandoned(): void;
}

/** Before a child runs it belongs to who commands it: when that one is gone, so is the child, after a while. */
export class Custody {
  readonly #options: CustodyOptions;
  #session: RpcServerSession | undefined;
  #abandoned: Timer | undefined;

  constructor(options: CustodyOptions) {
    this.#options = options;
  }

  /** The connection that commands the child, or did so last; absent for the child of an agent that has ended. */
  get session(): RpcServerSession | undefined {
    return this.#session;
  }

  /** The child belongs to this connection; without one it belongs to nobody. */
  passTo(session: RpcServerSession | undefined): void {
    if (session === undefined) return this.#toNobody();
    if (session === this.#session) return;
    this.#session = session;
    this.end();
    session.onEnd(() => {
      if (session === this.#session) this.#toNobody();
    });
  }

  /** Nobody's leaving matters any more. May be called twice. */
  end(): void {
    this.#abandoned?.cancel();
    this.#abandoned = undefined;
  }

  #toNobody(): void {
    const { clock, isAbandonable, onAbandoned } = this.#options;
    if (!isAbandonable()) return;
    this.#abandoned ??= clock.after(ABANDONED_MS, () => {
      if (isAbandonable()) onAbandoned();
    });
  }
}
