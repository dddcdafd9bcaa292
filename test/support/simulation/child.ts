import type { ChildMachine, ChildTarget, ParentSession } from "../../../src/transfer/index.js";
import type { SimulatedMemory } from "./memory.js";

/** A simulated child: its memory, its machine, and whether its processors may run. */
export interface SimulatedChild {
  target: ChildTarget;
  session: ParentSession;
  machine: ChildMachine;
  memory: SimulatedMemory;
  running: boolean;
  cancelled: boolean;
  own: Map<number, Uint8Array>;
  /** Pages not touched yet; the sweep of a plan that holds it goes on when none is left. */
  untouched: number[];
}

/** True when neither side has anything left to do. */
export function isOver(child: SimulatedChild): boolean {
  const mine = child.machine.phase.phase;
  const theirs = child.session.phase.phase;
  return (
    (mine === "complete" || mine === "failed" || !child.running) &&
    (theirs === "complete" || theirs === "failed")
  );
}
