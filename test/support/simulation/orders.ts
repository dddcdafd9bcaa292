import type { CompressionOptions, FlowChange, ParentSession } from "../../../src/transfer/index.js";

/** What an operator has ordered of each transfer, which lies on the parent's host's disk and holds in all lives of its agent. */
export class Orders {
  readonly #sweeps = new Set<number>();
  readonly #flows = new Map<number, FlowChange>();
  readonly #sessionOf: (transfer: number) => ParentSession | undefined;

  /** @param sessionOf the session of the present life, if there is any. */
  constructor(sessionOf: (transfer: number) => ParentSession | undefined) {
    this.#sessionOf = sessionOf;
  }

  /** Lets the sweep of a transfer go on. */
  sweep(transfer: number): void {
    this.#sweeps.add(transfer);
    this.#sessionOf(transfer)?.setSweep(true);
  }

  /** Changes how fast its pages are sent. */
  steer(transfer: number, flow: FlowChange): void {
    this.#flows.set(transfer, flow);
    this.#sessionOf(transfer)?.setFlow(flow);
  }

  /** What a new session of the transfer is to be told. */
  of(transfer: number, planned: { sweep: boolean }): FlowChange & { sweep: boolean } {
    return { sweep: planned.sweep || this.#sweeps.has(transfer), ...this.#flows.get(transfer) };
  }
}

/** Whether pages are compressed, as planned: transfers here are so small that each frame is a sample. */
export function compressionOf({ compress }: { compress: boolean | "auto" }): boolean | CompressionOptions {
  if (compress !== "auto") return compress;
  return { choice: "auto", first: false, sample: { bytes: 1, us: 0 } };
}
