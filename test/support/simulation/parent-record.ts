import type { ChildAgent } from "./child-agent.js";
import type { EmulatorOptions } from "./emulator.js";
import type { SimulatedHost } from "./host.js";
import type { SimulatedNetwork } from "./network.js";

/**
 * What lies on the parent's host's disk of one transfer. `told`: the child may have been told to run. `decided`: it is known that it does, which
 * matters in a migration. `stays`: a migration whose child ran and was lost; the parent stays stopped, for its operator.
 */
export interface ParentRecord {
  told: boolean;
  decided: boolean;
  stays: boolean;
}

export interface ParentAgentOptions extends EmulatorOptions {
  host: SimulatedHost;
  network: SimulatedNetwork;
  children: readonly ChildAgent[];
  signal: AbortSignal;
  /** What earlier children have left of the order in which they touched pages. */
  workingSet: Uint8Array;
  /** From here on a new agent goes on with a transfer instead of taking it back. */
  onTold(): void;
}
