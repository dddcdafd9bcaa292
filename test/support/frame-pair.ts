import type { FrameLane, LaneEnd } from "../../src/transfer/index.js";

/** Both ends of a lane without sockets: frames arrive a turn later, in order, and the test can look at them, hold them up and cut the lane. */
export class FramePair {
  readonly left: PairedLane;
  readonly right: PairedLane;

  constructor() {
    this.left = new PairedLane();
    this.right = new PairedLane();
    this.left.other = this.right;
    this.right.other = this.left;
  }

  /** The connection breaks: both owners are told, and what is on its way does not arrive. */
  cut(): void {
    for (const lane of [this.left, this.right])
      lane.endFromOutside({ code: "dead", message: "the link broke", fatal: false });
  }
}

export class PairedLane implements FrameLane {
  readonly queuedBytes = 0;
  /** Frames this side has sent. */
  readonly sent: Buffer[] = [];
  /** Why the other side has ended it. */
  ended: LaneEnd | undefined;
  other!: PairedLane;
  #handlers: { onFrame(frame: Uint8Array): void; onEnd(end: LaneEnd): void } | undefined;
  #early: Uint8Array[] = [];
  #over = false;

  send(frame: Uint8Array): void {
    if (this.#over) return;
    this.sent.push(Buffer.from(frame));
    setImmediate(() => this.other.arrive(frame));
  }

  attach(handlers: { onFrame(frame: Uint8Array): void; onEnd(end: LaneEnd): void }): void {
    this.#handlers = handlers;
    for (const frame of this.#early.splice(0)) handlers.onFrame(frame);
  }

  close(end: LaneEnd): void {
    if (this.#over) return;
    this.#over = true;
    setImmediate(() => this.other.endFromOutside(end));
  }

  arrive(frame: Uint8Array): void {
    if (this.#over) return;
    if (this.#handlers === undefined) return void this.#early.push(frame);
    // Whoever keeps it copies it.
    const lent = Buffer.from(frame);
    this.#handlers.onFrame(lent);
    lent.fill(0xdd);
  }

  endFromOutside(end: LaneEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.ended = end;
    this.#handlers?.onEnd(end);
  }
}
