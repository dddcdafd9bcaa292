import type { FrameLane, LaneEnd } from "../../../src/transfer/index.js";
import type { Scheduler } from "./scheduler.js";

interface Handlers {
  onFrame(frame: Uint8Array): void;
  onEnd(end: LaneEnd): void;
}

/** One end of a simulated connection: ordered, late, and lost as a whole when it breaks. */
class SimulatedEnd implements FrameLane {
  other: SimulatedEnd | undefined;
  readonly #scheduler: Scheduler;
  readonly #latencyUs: number;
  readonly #bytesPerUs: number;
  readonly #early: (() => void)[] = [];
  #handlers: Handlers | undefined;
  #open = true;
  #arrivesAtUs = 0;
  #queuedBytes = 0;

  constructor(scheduler: Scheduler, link: { latencyUs: number; bytesPerUs: number }) {
    this.#scheduler = scheduler;
    this.#latencyUs = link.latencyUs;
    this.#bytesPerUs = link.bytesPerUs;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  send(frame: Uint8Array, onTaken?: () => void): void {
    if (!this.#open) return;
    const bytes = Uint8Array.from(frame);
    onTaken?.();
    const { random } = this.#scheduler;
    const now = this.#scheduler.nowUs();
    this.#queuedBytes += bytes.length;
    // A connection keeps its order: nothing arrives before what was sent earlier.
    this.#arrivesAtUs =
      Math.max(this.#arrivesAtUs, now + this.#latencyUs + random.below(40)) + bytes.length / this.#bytesPerUs;
    this.#scheduler.afterUs(this.#arrivesAtUs - now, () => {
      this.#queuedBytes -= bytes.length;
      this.other?.deliver((handlers) => {
        handlers.onFrame(bytes);
        // Whoever has kept them without a copy shall notice.
        bytes.fill(0xa5);
      });
    });
  }

  attach(handlers: Handlers): void {
    this.#handlers = handlers;
    for (const early of this.#early.splice(0)) early();
  }

  close(end: LaneEnd): void {
    if (!this.#open) return;
    this.#open = false;
    const now = this.#scheduler.nowUs();
    const arrivesUs = Math.max(this.#arrivesAtUs + 1 - now, this.#latencyUs);
    this.#scheduler.afterUs(arrivesUs, () => this.other?.lose(end));
  }

  deliver(give: (handlers: Handlers) => void): void {
    if (!this.#open) return;
    if (this.#handlers !== undefined) give(this.#handlers);
    else this.#early.push(() => this.deliver(give));
  }

  lose(end: LaneEnd): void {
    this.deliver((handlers) => {
      this.#open = false;
      handlers.onEnd(end);
    });
  }

  get isOpen(): boolean {
    return this.#open;
  }
}

/**
 * Both ends of a new connection, and ways to lose it. Broken: what is on the way is lost and each end hears of it in its own time. Ended by one side's
 * death: broken, or closed as a kernel does for a process that was killed, with all it sent still arriving.
 */
export function simulatedLane(
  scheduler: Scheduler,
  bytesPerUs: number,
): {
  parent: FrameLane;
  child: FrameLane;
  break(): void;
  end(side: "parent" | "child"): void;
  isOpen(): boolean;
} {
  const link = { latencyUs: scheduler.random.below(200), bytesPerUs };
  const parent = new SimulatedEnd(scheduler, link);
  const child = new SimulatedEnd(scheduler, link);
  parent.other = child;
  child.other = parent;
  const breakIt = (): void => {
    parent.other = undefined;
    child.other = undefined;
    const end = { code: "dead", message: "the simulated connection broke", fatal: false };
    for (const side of [parent, child]) scheduler.afterUs(scheduler.random.below(3000), () => side.lose(end));
  };
  const closed = { code: "closed", message: "the simulated agent has ended", fatal: false };
  return {
    parent,
    child,
    isOpen: () => parent.isOpen || child.isOpen,
    break: breakIt,
    end: (side) =>
      scheduler.random.chance(0.5) ? breakIt() : (side === "parent" ? parent : child).close(closed),
  };
}
