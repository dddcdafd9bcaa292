/** Runs one suite of measurements, or shows what earlier runs have written; `scripts/bench` prepares what it needs. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chartsOf } from "./charts.js";
import { withTables } from "./document.js";
import { thisMachine, type Machine } from "./machine.js";
import { markdownOf, Results, tableOf, type Metrics } from "./statistics.js";
import type { Suite } from "./suite.js";
import { SUITES } from "./suites.js";
import { svgOf } from "./svg.js";

/** What `--json` writes. */
interface Report {
  suite: string;
  machine: Machine;
  runs: number;
  metrics: Metrics;
}

interface Flags {
  into?: string;
  json?: string;
  plot?: string;
  runs?: string;
  vs?: string;
}

const EXIT_USAGE = 2;

function refuse(problem: string): never {
  process.stderr.write(`bench: ${problem}\n`);
  process.exit(EXIT_USAGE);
}

function readArguments(): { values: Flags; positionals: string[] } {
  const text = { type: "string" } as const;
  try {
    return parseArgs({
      allowPositionals: true,
      options: { into: text, json: text, plot: text, runs: text, vs: text },
    });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function plot(metrics: Metrics, directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const chart of chartsOf(metrics)) writeFileSync(join(directory, `${chart.name}.svg`), svgOf(chart));
}

/** Prints what files of `--json` hold as tables for a document, or puts it into one that has a place for it. */
function show(files: readonly string[], { plot: directory, into }: Flags): void {
  if (files.length === 0) refuse("show takes files that --json has written");
  for (const file of files) {
    const { suite, machine, runs, metrics } = JSON.parse(readFileSync(file, "utf8")) as Report;
    if (into !== undefined) {
      writeFileSync(into, withTables(readFileSync(into, "utf8"), { suite, metrics }));
    } else {
      console.log(`${suite}: ${runs} runs; ${Object.values(machine).join(", ")}\n\n${markdownOf(metrics)}\n`);
    }
    if (directory !== undefined) plot(metrics, directory);
  }
}

async function measure(name: string, suite: Suite, flags: Flags): Promise<void> {
  const runs = Number(flags.runs ?? suite.runs);
  if (!Number.isInteger(runs) || runs < 1) refuse(`--runs takes a whole number from 1, not ${flags.runs}`);
  if (flags.vs !== undefined && flags.vs !== "qemu") refuse(`--vs takes qemu, not ${flags.vs}`);
  const versusQemu = flags.vs === "qemu";
  if (versusQemu && suite.canVersusQemu !== true)
    refuse(`${name} has nothing to compare with; leave out --vs`);
  const results = new Results();
  await suite.measure({ runs, versusQemu, results });
  const report: Report = { suite: name, machine: thisMachine(), runs, metrics: results.metrics };
  console.log(tableOf(report.metrics));
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, undefined, 2)}\n`);
  if (flags.plot !== undefined) plot(report.metrics, flags.plot);
}

const { values, positionals } = readArguments();
const [name = "", ...rest] = positionals;
if (name === "show") {
  show(rest, values);
} else {
  const suite = SUITES[name];
  if (suite === undefined) refuse(`there is no suite "${name}"; there are ${Object.keys(SUITES).join(", ")}`);
  if (rest.length > 0) refuse(`one suite at a time, not also "${rest.join(" ")}"`);
  await measure(name, suite, values);
}
