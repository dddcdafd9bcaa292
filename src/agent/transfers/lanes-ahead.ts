import { isSame, type Holder } from "../../base/index.js";
import type { Connection } from "../../lane/index.js";
import type { LaneEnd } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { FaultThreadHandle, LaneAhead } from "../faults/fault-thread.js";
import { dialLane, type Dialler } from "./dial-lane.js";

/** Most transfers to come whose lanes this host has dialled, for all its peers together. */
const MAX_TRANSFERS = 64;
/** And for one of them, which must leave room for others. */
export const MAX_TRANSFERS_PER_PEER = 16;
/** A child that has no earlier agent dials with this epoch first. */
export const FIRST_EPOCH = 1;

const UNUSED: LaneEnd = { code: "closed", message: "no transfer needs it any more", fatal: false };

/** Both page lanes of a transfer that is to come. */
export interface LanesOfTransfer {
  urgent: LaneAhead;
  bulk: Connection;
}

interface Kept extends LanesOfTransfer {
  holder: Holder;
  token: string;
  url: string;
}

/** The page lanes that were dialled for children to come, at the hosts of their parents. */
export class LanesAhead {
  readonly #faults: Pick<FaultThreadHandle, "dialAhead">;
  readonly #dialler: Dialler;
  readonly #dialling = new Map<number, { holder: Holder }>();
  readonly #kept = new Map<number, Kept>();
  #closed = false;

  constructor(options: { faults: Pick<FaultThreadHandle, "dialAhead">; dialler: Dialler }) {
    this.#faults = options.faults;
    this.#dialler = options.dialler;
  }

  /**
   * Dials both lanes of a transfer and keeps them for its child.
   * @throws AgentError `busy` when there are too many, or it is done already; LaneError.
   */
  async dial(wanted: { transfer: number; token: string; url: string; holder: Holder }): Promise<void> {
    const { transfer } = wanted;
    if (this.#dialling.size + this.#kept.size >= MAX_TRANSFERS)
      throw new AgentError("busy", `this host keeps lanes for ${MAX_TRANSFERS} transfers to come already`);
    if (this.#dialling.has(transfer) || this.#kept.has(transfer))
      throw new AgentError("busy", `this host keeps lanes for transfer ${transfer} already`);
    const all = [...this.#dialling.values(), ...this.#kept.values()];
    if (all.filter(({ holder }) => isSame(holder, wanted.holder)).length >= MAX_TRANSFERS_PER_PEER) {
      const message = `this host keeps lanes for ${MAX_TRANSFERS_PER_PEER} transfers to come of ${wanted.holder.name} already`;
      throw new AgentError("busy", message);
    }
    this.#dialling.set(transfer, wanted);
    try {
      this.#keep(transfer, { ...wanted, ...(await this.#dialBoth(wanted)) });
    } finally {
      this.#dialling.delete(transfer);
    }
  }

  /** Takes the lanes of a transfer that has come, if they are there and lead where they are to. Whoever takes them ends them. */
  take(wanted: {
    transfer: number;
    token: string;
    url: string;
    holder: Holder;
  }): LanesOfTransfer | undefined {
    const kept = this.#kept.get(wanted.transfer);
    if (kept === undefined) return undefined;
    this.#kept.delete(wanted.transfer);
    if (kept.token === wanted.token && kept.url === wanted.url && isSame(kept.holder, wanted.holder))
      return { urgent: kept.urgent, bulk: kept.bulk };
    end(kept);
    return undefined;
  }

  /** Ends all of them. */
  close(): void {
    this.#closed = true;
    for (const transfer of [...this.#kept.keys()]) this.#drop(transfer);
  }

  async #dialBoth(wanted: {
    transfer: number;
    token: string;
    url: string;
    holder: Holder;
  }): Promise<LanesOfTransfer> {
    const address = { ...wanted, epoch: FIRST_EPOCH };
    const [urgent, bulk] = await Promise.allSettled([
      this.#faults.dialAhead({ ...address, purpose: "urgent" }),
      dialLane(this.#dialler, { ...address, purpose: "bulk" }),
    ]);
    if (urgent.status === "fulfilled" && bulk.status === "fulfilled")
      return { urgent: urgent.value, bulk: bulk.value };
    if (urgent.status === "fulfilled") urgent.value.close(UNUSED);
    if (bulk.status === "fulfilled") bulk.value.close(UNUSED);
    throw urgent.status === "rejected" ? urgent.reason : (bulk as PromiseRejectedResult).reason;
  }

  #keep(transfer: number, kept: Kept): void {
    if (this.#closed) return end(kept);
    this.#kept.set(transfer, kept);
    const onEnd = (): void => {
      if (this.#kept.get(transfer) === kept) this.#drop(transfer);
    };
    kept.bulk.park(onEnd);
    kept.urgent.park(onEnd);
  }

  #drop(transfer: number): void {
    const kept = this.#kept.get(transfer);
    this.#kept.delete(transfer);
    if (kept !== undefined) end(kept);
  }
}

function end({ urgent, bulk }: LanesOfTransfer): void {
  urgent.close(UNUSED);
  bulk.close(UNUSED);
}
