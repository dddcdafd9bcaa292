import assert from "node:assert/strict";
import { test } from "node:test";
import { BatchedTellings } from "../../../src/agent/faults/batched-tellings.js";
import type { Telling } from "../../../src/agent/faults/messages.js";
import { SeededRandom } from "../../../src/base/index.js";
import type { TakenPages } from "../../../src/transfer/index.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const taken = (page: number): TakenPages => ({
  firstPage: page,
  pageCount: 1,
  by: "answer",
  zero: false,
  latencyUs: 1,
});

const answers = (pages: number[]) => ({ pages, zeros: 0, around: [], aroundBytes: 0 });

function batched() {
  const told: Telling[] = [];
  return { told, tellings: new BatchedTellings(new Scheduler(new SeededRandom(1)), (one) => told.push(one)) };
}

test("what came of faults is told together, and each lane's and child's apart", () => {
  const { told, tellings } = batched();
  tellings.answered(1, answers([7]), 100);
  tellings.answered(
    1,
    { ...answers([8, 9]), zeros: 1, around: [{ first: 10, count: 2 }], aroundBytes: 60 },
    200,
  );
  tellings.counted(2, 50);
  tellings.taken(3, [taken(4)]);
  tellings.taken(3, [taken(5)]);
  assert.deepEqual(told, []);
  tellings.flush();
  assert.deepEqual(told, [
    { is: "taken", child: 3, taken: [taken(4), taken(5)] },
    {
      is: "answered",
      lane: 1,
      answers: { pages: [7, 8, 9], zeros: 1, around: [{ first: 10, count: 2 }], aroundBytes: 60 },
      bytes: 200,
    },
    { is: "counted", lane: 2, bytes: 50 },
  ]);
});

test("a lane's end comes after what came over it", () => {
  const { told, tellings } = batched();
  tellings.answered(1, answers([7]), 100);
  tellings.now({ is: "ended", lane: 1, end: { code: "closed", message: "enough", fatal: false } });
  assert.deepEqual(
    told.map(({ is }) => is),
    ["answered", "ended"],
  );
});

test("many pages are told at once", () => {
  const { told, tellings } = batched();
  for (let page = 0; page < 256; page += 1) tellings.taken(3, [taken(page)]);
  assert.equal(told.length, 1);
});
