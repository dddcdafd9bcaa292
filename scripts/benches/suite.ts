import type { Results } from "./statistics.js";

/** What a suite is given. */
export interface Bench {
  /** How often each thing is measured. */
  runs: number;
  /** Whether the emulator's own live migration is measured as well, alternately. */
  versusQemu: boolean;
  /** Where it puts what it measures. */
  results: Results;
}

export interface Suite {
  /** How often each thing is measured, unless the command line says otherwise. */
  runs: number;
  /** Measures, and leaves nothing behind. Throws when something did not work: then there are no figures. */
  measure(bench: Bench): Promise<void>;
  /** Whether there is something to measure with `--vs qemu`. */
  canVersusQemu?: boolean;
}

/** Tells the person who waits how far it is. */
export function showProgress(what: string, run: number, runs: number): void {
  const end = run >= runs ? "\n" : process.stderr.isTTY ? "\r" : "";
  if (end !== "") process.stderr.write(`${what}: ${Math.max(0, run)} of ${runs}${end}`);
}
