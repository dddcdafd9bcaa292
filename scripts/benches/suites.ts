import { measureAdoption } from "./adoption.js";
import { measureFaults } from "./faults.js";
import { measurePause } from "./pause.js";
import type { Suite } from "./suite.js";

/** Every suite by its name: one line here, and one in `scripts/bench --help`. */
export const SUITES: Readonly<Record<string, Suite>> = {
  pause: { measure: measurePause, runs: 20 },
  faults: { measure: measureFaults, runs: 3 },
  adoption: { measure: measureAdoption, runs: 20 },
};
