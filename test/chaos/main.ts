import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";
import { realClock } from "../../src/base/index.js";
import { Campaign, again, type Result } from "./campaign.js";
import { isBad } from "./judge.js";
import { planOf } from "./plan.js";
import { codesOf, countsOf, lineOf, tableOf } from "./report.js";

const DEFAULT_INJECTIONS = 200;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    injections: { type: "string", default: String(DEFAULT_INJECTIONS) },
    only: { type: "string" },
    seconds: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const seed = Number(values.seed);
const injections = Number(values.injections);
if (values.seed === undefined || !Number.isInteger(seed) || !Number.isInteger(injections) || injections < 1) {
  process.stderr.write("chaos: --seed and --injections take whole numbers, and --seed is needed\n");
  process.exit(2);
}
const only = values.only === undefined ? undefined : new RegExp(values.only);

const beganUs = realClock.nowUs();
const results: Result[] = [];
const campaign = new Campaign((result) => {
  results.push(result);
  process.stderr.write(`${lineOf(result)}\n`);
});
// What was begun is brought to its end, so that nothing is left behind.
process.once("SIGTERM", () => campaign.stop());
process.once("SIGINT", () => campaign.stop());
const limit =
  values.seconds === undefined
    ? undefined
    : realClock.after(Number(values.seconds) * 1000, () => campaign.stop());
const problems = await campaign.run(planOf({ seed, injections, ...(only === undefined ? {} : { only }) }));
limit?.cancel();
const tookS = Math.round((realClock.nowUs() - beganUs) / 1e6);
const bad = results.filter(({ outcome }) => isBad(outcome));
const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();

if (values.json) {
  const whole = {
    seed,
    commit,
    injections: results.length,
    tookS,
    problems,
    codes: codesOf(results),
    results,
  };
  console.log(JSON.stringify(whole, undefined, 2));
} else {
  console.log(`seed ${seed}, commit ${commit}, ${results.length} injections in ${tookS} s\n`);
  console.log(tableOf(results));
  console.log(`\n${countsOf(results)}`);
  console.log(`\ncodes of clean failures: ${JSON.stringify(codesOf(results))}`);
  for (const problem of problems) console.log(`left at the end: ${problem}`);
  for (const result of bad) console.log(`to run it again: ${again(result, seed)}`);
}
process.exit(bad.length > 0 || problems.length > 0 ? 1 : 0);
