import { Bitmap, type Clock, type Log } from "../../base/index.js";
import type { Params } from "../../control/index.js";
import type { WritableRegion } from "../../memory/index.js";
import {
  PrecopySink,
  type ChildNotes,
  type FrameLane,
  type TransferError,
  type TransferProgress,
} from "../../transfer/index.js";
import { AgentError } from "../errors.js";

/** What is copied ahead into a child on this host, up to its start, and what the parent then says the child lacks. */
export class ChildPrecopy {
  readonly #memory: WritableRegion;
  readonly #sink: PrecopySink;
  readonly #lacking: Bitmap;
  /** Pages whose bits have come; all of them when the last piece has. */
  #told = 0;

  /** Takes over the memory's file. */
  constructor(options: {
    transfer: number;
    memory: WritableRegion;
    notes: ChildNotes;
    verify: boolean;
    dial: (epoch: number) => Promise<FrameLane>;
    onFailed(error: TransferError): void;
    clock: Clock;
    log: Log;
  }) {
    this.#memory = options.memory;
    this.#lacking = new Bitmap(options.memory.pageCount);
    this.#sink = new PrecopySink(options);
  }

  start(): void {
    this.#sink.start();
  }

  /** Takes a piece of what the child lacks. @throws AgentError `bad-request` when it does not follow the one before. */
  lacks({ firstPage, bits, last }: Params<"peer.lacks">): void {
    const pages = this.#lacking.length;
    const past = firstPage + bits.length * 8;
    if (firstPage !== this.#told || last !== past >= pages || bits.length === 0) {
      throw new AgentError(
        "bad-request",
        `pieces of what a child lacks come without gaps, in order; page ${this.#told} is next`,
      );
    }
    this.#lacking.setBytes(firstPage, bits);
    this.#told = Math.min(past, pages);
  }

  /** What was copied ahead is all there will be. @throws AgentError `bad-request` before it is told what the child lacks; TransferError `peer-protocol`. */
  commit(): void {
    if (this.#told < this.#lacking.length) {
      throw new AgentError(
        "bad-request",
        "memory was copied ahead, so what the child lacks must be told before it is started",
      );
    }
    this.#sink.commit(this.#lacking);
    this.#memory.close();
  }

  /** A transfer's counts while memory is copied ahead. */
  addTo(progress: TransferProgress): TransferProgress {
    const { received, zero, bytes, linked } = this.#sink.progress();
    return { ...progress, received, zero, bulkBytes: progress.bulkBytes + bytes, linked };
  }

  /** May be called twice. */
  close(): void {
    this.#sink.close();
    this.#memory.close();
  }
}
