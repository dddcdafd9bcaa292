import { measureAdoption } from "./adoption.js";
import { measureDisk } from "./disk.js";
import { measureExchange } from "./exchange.js";
import { measureFanout } from "./fanout.js";
import { measureFaults } from "./faults.js";
import { measureFirst } from "./first.js";
import { measureGrowth } from "./growth.js";
import { measureMigrate } from "./migrate.js";
import { measurePause } from "./pause.js";
import { measureDensity } from "./same-host.js";
import { measureStart } from "./start.js";
import type { Suite } from "./suite.js";
import { measureSweep } from "./sweep.js";
import { measureWorkingSet } from "./working-set.js";

/** Every suite by its name: one line here, and one in `scripts/bench --help`. */
export const SUITES: Readonly<Record<string, Suite>> = {
  pause: { measure: measurePause, runs: 15, canVersusQemu: true },
  start: { measure: measureStart, runs: 20 },
  faults: { measure: measureFaults, runs: 3, canVersusQemu: true },
  first: { measure: measureFirst, runs: 5, canVersusQemu: true },
  sweep: { measure: measureSweep, runs: 5, canVersusQemu: true },
  migrate: { measure: measureMigrate, runs: 2, canVersusQemu: true },
  growth: { measure: measureGrowth, runs: 3 },
  density: { measure: measureDensity, runs: 2 },
  fanout: { measure: measureFanout, runs: 3 },
  "working-set": { measure: measureWorkingSet, runs: 10 },
  exchange: { measure: measureExchange, runs: 20 },
  disk: { measure: measureDisk, runs: 5 },
  adoption: { measure: measureAdoption, runs: 20 },
};
