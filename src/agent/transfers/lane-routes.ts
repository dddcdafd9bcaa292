import { timingSafeEqual } from "node:crypto";
import type { FrameLane, PageLane } from "../../transfer/index.js";
import { CodedError, isSame, type Holder, type Identity, type Log } from "../../base/index.js";
import { LaneError, type Connection } from "../../lane/index.js";
import type { ArrivedLane, UrgentLane } from "../faults/fault-thread.js";

/** Whose lanes are let in. */
interface LaneOwner {
  /** Whom the transfer was agreed with; undefined before that. */
  holder(): Holder | undefined;
}

/** Who takes the page lanes of a transfer: its session, on the parent's side. */
export interface LaneTaker extends LaneOwner {
  /** Throws when the transfer is over or the lane is out of date. */
  acceptLane(
    lane: PageLane | "precopy",
    epoch: number,
    connection: Connection | UrgentLane,
    options: { lz4: boolean },
  ): void;
  /** A descriptor of the memory file, for whoever answers requests; it is closed there. Undefined when there is no such file. */
  shareFile(): number | undefined;
}

/** Who takes the lane on which a child is passed on what another one is given: that other child, on its side. */
export interface RelayTaker extends LaneOwner {
  /** Throws when nothing is passed on to it any more or the lane is out of date. */
  acceptLane(epoch: number, connection: FrameLane, options: { lz4: boolean }): void;
}

interface Route<Taker> {
  token: Buffer;
  taker: Taker;
}

/**
 * Leads the page lanes that children dial to the sessions of their transfers. A lane must know the transfer's token, and be of the
 * certificate's holder the transfer was agreed with: another host gets no page, whatever it has heard.
 */
export class LaneRoutes<Taker extends LaneOwner = LaneTaker> {
  readonly #routes = new Map<number, Route<Taker>>();
  readonly #isWhole: () => boolean;

  /** @param options.isWhole whether every guest of this host, and so every transfer, is known. */
  constructor(options: { isWhole(): boolean }) {
    this.#isWhole = options.isWhole;
  }

  /** Lets lanes of a transfer in, from now until the returned function is called. */
  open(transfer: number, token: string, taker: Taker): () => void {
    const route = { token: Buffer.from(token), taker };
    this.#routes.set(transfer, route);
    return () => void (this.#routes.get(transfer) === route && this.#routes.delete(transfer));
  }

  has(transfer: number): boolean {
    return this.#routes.has(transfer);
  }

  /**
   * The taker of a lane.
   * @throws LaneError `unknown-transfer`, alike for a transfer that is not there, a token that is wrong and another's transfer; not for good when there are guests this agent
   *   could not take over.
   */
  find(asking: Identity, transfer: number | undefined, token: string | undefined): Taker {
    const route = transfer === undefined ? undefined : this.#routes.get(transfer);
    const shown = Buffer.from(token ?? "");
    if (route !== undefined && shown.length === route.token.length && timingSafeEqual(shown, route.token)) {
      const holder = route.taker.holder();
      if (holder !== undefined && isSame(holder, asking)) return route.taker;
    }
    const message = `this agent sends no pages for transfer ${transfer ?? "(none)"}`;
    throw new LaneError("unknown-transfer", message, { fatal: this.#isWhole() });
  }
}

/** Leads an urgent lane that another thread has to its transfer's session, or ends it as a listener would. */
export function takeArrived(routes: LaneRoutes, lane: ArrivedLane, log: Log): void {
  const { transfer, token, epoch = 0, features } = lane.hello;
  try {
    const taker = routes.find(lane.identity, transfer, token);
    const options = { lz4: features.includes("lz4") };
    taker.acceptLane(
      "urgent",
      epoch,
      lane.over(() => taker.shareFile()),
      options,
    );
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    const { code, message } = error;
    log.warn({ remote: lane.remote, code, reason: message }, "a connection was refused");
    const fatal = !("fatal" in error) || error.fatal === true;
    lane.close({ code, message, fatal });
  }
}
