import type { Params } from "../../control/index.js";
import type { CompressionChoice, FlowChange } from "../../transfer/index.js";
import type { TransferEntry } from "./transfer-entry.js";
import { flowOf, type ParentRecord } from "./transfer-record.js";

/** What an operator changes of a transfer while it runs; what is not named stays. */
export type SteerChange = Omit<Params<"transfer.steer">, "transfer">;

/** What a transfer's memory is sent by. */
export interface Steered {
  setSweep(on: boolean): void;
  childRuns(): void;
  setFlow(change: FlowChange): void;
}

/** How a transfer's memory is sent, as it was chosen at the start and is changed while it runs: done, noted for the next agent, and shown. */
export class Steering {
  readonly #entry: TransferEntry;
  readonly #session: Steered;
  readonly #precopy: Pick<Steered, "setFlow"> | undefined;
  readonly #record: () => Readonly<ParentRecord>;
  readonly #keep: (change: Partial<ParentRecord>) => void;

  constructor(options: {
    entry: TransferEntry;
    session: Steered;
    precopy: Pick<Steered, "setFlow"> | undefined;
    record: () => Readonly<ParentRecord>;
    /** Writes a change down. */
    keep: (change: Partial<ParentRecord>) => void;
  }) {
    this.#entry = options.entry;
    this.#session = options.session;
    this.#precopy = options.precopy;
    this.#record = options.record;
    this.#keep = options.keep;
    this.#show();
  }

  /** The child runs, or is held: the sweep may go. */
  begin(): void {
    this.#session.childRuns();
    this.#session.setSweep(this.#record().sweep === "on");
  }

  /** @param mayBegin false while the child is loaded, when nothing may stand in the way of its faults. */
  change(change: SteerChange, mayBegin: boolean): void {
    const { sweep, rateLimitBytesPerSecond: rate, priority, compression } = change;
    this.#keep({
      ...(sweep === undefined ? {} : { sweep }),
      ...(priority === undefined ? {} : { priority }),
      ...(compression === undefined ? {} : compressionChosen(compression, this.#record())),
      ...(rate === undefined ? {} : { rateLimitBytesPerSecond: rate === 0 ? undefined : rate }),
    });
    const flow = { ...flowOf(this.#record()), ...(compression === undefined ? {} : { compression }) };
    this.#session.setFlow(flow);
    this.#precopy?.setFlow(flow);
    if (mayBegin) this.begin();
    this.#show();
    this.#entry.onChange();
  }

  #show(): void {
    const { sweep, rateLimitBytesPerSecond, priority } = this.#record();
    const { facts } = this.#entry;
    facts.sweep = sweep;
    facts.priority = priority ?? "normal";
    if (rateLimitBytesPerSecond === undefined) delete facts.rateLimitBytesPerSecond;
    else facts.rateLimitBytesPerSecond = rateLimitBytesPerSecond;
  }
}

/** `auto` goes on as it is until it has measured. */
function compressionChosen(compression: CompressionChoice, { compress }: Readonly<ParentRecord>) {
  return { compression, compress: compression === "auto" ? compress : compression === "lz4" };
}
