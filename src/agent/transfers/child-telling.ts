import type { Clock, Timer } from "../../base/index.js";
import type { ChildReport, RpcServerSession } from "../../control/index.js";
import type { ChildMachine } from "../../transfer/index.js";
import type { AwaitedDisks } from "../disks/awaited-disks.js";
import type { Custody } from "./custody.js";
import { reportOfView } from "./hosted-child.js";
import type { TransferEntry } from "./transfer-entry.js";

const REPORT_INTERVAL_MS = 1000;

export interface ChildTellingOptions {
  entry: TransferEntry;
  machine: Pick<ChildMachine, "phase">;
  custody: Custody;
  disks: AwaitedDisks;
  clock: Clock;
  /** Called each time, after it was told: what may have changed is looked at. */
  onLook(): void;
}

/** Tells the parent's agent once a second how far a child is, until its transfer is over, and whenever it asks. */
export class ChildTelling {
  readonly #options: ChildTellingOptions;
  #timer: Timer | undefined;

  constructor(options: ChildTellingOptions) {
    this.#options = options;
  }

  begin(): void {
    const { clock, entry, onLook } = this.#options;
    this.#timer = clock.after(REPORT_INTERVAL_MS, () => {
      if (entry.over) return;
      this.tell();
      onLook();
      if (!entry.over) this.begin();
    });
  }

  end(): void {
    this.#timer?.cancel();
  }

  tell(): void {
    this.#options.custody.session?.sendEvent("peerTransfer", this.report());
  }

  /** What only this side knows of the transfer. Whoever asks is told of its changes from then on. */
  report(session?: RpcServerSession): ChildReport {
    if (session !== undefined) this.heardOn(session);
    const { entry, machine } = this.#options;
    const awaitsDisks = machine.phase.phase === "complete" && !entry.over;
    return { ...reportOfView(entry.view()), ...(awaitsDisks ? { awaitsDisks } : {}) };
  }

  /** The parent's agent commands the child on this connection. */
  heardOn(session: RpcServerSession): void {
    this.#options.custody.passTo(session);
    this.#options.disks.noteAsked();
  }
}
