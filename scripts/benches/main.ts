/** Runs one suite of measurements; `scripts/bench` prepares what it needs. */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { thisMachine } from "./machine.js";
import { Results, tableOf } from "./statistics.js";
import { SUITES } from "./suites.js";

const EXIT_USAGE = 2;

function refuse(problem: string): never {
  process.stderr.write(`bench: ${problem}\n`);
  process.exit(EXIT_USAGE);
}

function readArguments(): { values: { json?: string; runs?: string; vs?: string }; positionals: string[] } {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { json: { type: "string" }, runs: { type: "string" }, vs: { type: "string" } },
    });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

const { values, positionals } = readArguments();
const [name = "", ...rest] = positionals;
const suite = SUITES[name];
if (suite === undefined) refuse(`there is no suite "${name}"; there are ${Object.keys(SUITES).join(", ")}`);
if (rest.length > 0) refuse(`one suite at a time, not also "${rest.join(" ")}"`);
const runs = Number(values.runs ?? suite.runs);
if (!Number.isInteger(runs) || runs < 1) refuse(`--runs takes a whole number from 1, not ${values.runs}`);
if (values.vs !== undefined && values.vs !== "qemu") refuse(`--vs takes qemu, not ${values.vs}`);
const versusQemu = values.vs === "qemu";
if (versusQemu && suite.canVersusQemu !== true) refuse(`${name} has nothing to compare with; leave out --vs`);

const results = new Results();
await suite.measure({ runs, versusQemu, results });
const { metrics } = results;
console.log(tableOf(metrics));
if (values.json !== undefined) {
  const report = { suite: name, machine: thisMachine(), runs, metrics };
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
}
