import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { measureAdoption } from "./adoption.js";
import { measureFaults } from "./faults.js";
import { Laboratory } from "./laboratory.js";
import { measurePause } from "./pause.js";
import { tableOf } from "./statistics.js";

const SUITES = {
  pause: { measure: measurePause, runs: 20 },
  faults: { measure: measureFaults, runs: 3 },
  adoption: { measure: measureAdoption, runs: 20 },
} as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "string" }, runs: { type: "string" } },
});
const suite = positionals[0] as keyof typeof SUITES;
const runs = values.runs === undefined ? SUITES[suite].runs : Number(values.runs);
if (!Number.isInteger(runs) || runs < 1) {
  process.stderr.write(`bench: --runs takes a whole number from 1, not ${values.runs}\n`);
  process.exit(2);
}

const laboratory = await Laboratory.open();
try {
  const metrics = await SUITES[suite].measure(laboratory, runs);
  const emulator = execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }).split("\n")[0];
  const machine = {
    processors: cpus().length,
    model: cpus()[0]?.model ?? "",
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    emulator,
    accelerator: "tcg",
  };
  console.log(tableOf(metrics));
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ suite, machine, runs, metrics }, undefined, 2)}\n`);
  }
} finally {
  await laboratory.close();
}
