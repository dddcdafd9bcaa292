import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { Campaign, type Result } from "./campaign.js";
import { isBad } from "./judge.js";
import { plansNamed } from "./plan.js";
import { lineOf } from "./report.js";

const SEED = 3;

/** A few of the many that scripts/chaos plays: each kind of fault, each kind of operation, each state that takes time. */
const NAMES = [
  "cut-all/starting/migrate",
  "truncate/sweeping/fork",
  "stall/pausing/fork-two",
  "partition/faulting/migrate",
  "freeze-parent-agent/arming/fork-here",
  "restart-parent-agent/pausing/fork-shared",
  "kill-parent-agent/sweeping/fork",
  "kill-child-agent/faulting/precopy",
  "restart-parent-agent/pausing/migrate",
  "kill-child-emulator/faulting/migrate",
  "fill-child-disk/arming/fork",
];

describe("guests while things break", () => {
  const results: Result[] = [];
  after(() => process.stdout.write(`${results.map(lineOf).join("\n")}\n`));

  test("nothing is lost, and nothing is left over", async () => {
    const campaign = new Campaign((result) => results.push(result));
    const problems = await campaign.run(plansNamed({ seed: SEED, names: NAMES }));
    assert.deepEqual(
      results.filter(({ outcome }) => isBad(outcome)),
      [],
    );
    assert.equal(results.length, NAMES.length);
    assert.deepEqual(problems, []);
  });
});
