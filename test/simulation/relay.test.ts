import assert from "node:assert/strict";
import { test } from "node:test";
import type { Plan } from "../support/simulation/plan.js";
import { World } from "../support/simulation/world.js";

/** A fork in which nothing goes wrong by itself, and in which every page has content. */
const CALM: Partial<Plan> = {
  pages: 60,
  children: 3,
  migrate: false,
  precopy: false,
  holes: 0,
  verify: true,
  sweep: true,
  copyBudgetPages: 60,
  breaks: 0,
  dialFails: 0,
  startFails: 0,
  prepareFails: 0,
  saveFails: 0,
  answersLost: 0,
  cancelAtUs: undefined,
  outOfMemoryAfter: undefined,
  saveWrites: 0,
  earlyCrashes: 0,
  lateCrashes: 0,
  touchers: 0,
  writers: 1,
  hosts: ["own", "own", "own"],
};

const SEEDS = Array.from({ length: 20 }, (_, index) => index + 1);

async function play(seed: number, plan: Partial<Plan>): Promise<World> {
  const world = new World(seed, { ...CALM, ...plan });
  await world.play();
  assert.match(world.result, /^complete/, `seed ${seed}`);
  return world;
}

for (const [shape, relays] of [
  ["chain", [undefined, 0, 1]],
  ["tree", [undefined, 0, 0]],
] as const) {
  test(`of a ${shape} of children, the parent sweeps to the first almost alone`, async () => {
    let [swept, relayed] = [0, 0];
    for (const seed of SEEDS) {
      const world = await play(seed, { relays: [...relays] });
      for (const pages of world.swept.slice(1)) swept += pages;
      relayed += world.relayed;
    }
    // A command that is late, as one of 25 is, leaves a child to its parent.
    assert.ok(swept < relayed / 10, `${swept} pages were swept to the others, ${relayed} came by relays`);
  });
}

test("without relays the parent sweeps to every child", async () => {
  // One whose parent writes everything at once is only pushed to.
  const swept = [0, 0, 0];
  for (const seed of SEEDS) {
    const world = await play(seed, { relays: [] });
    assert.equal(world.relayed, 0);
    for (const [child, pages] of world.swept.entries()) swept[child] = (swept[child] ?? 0) + pages;
  }
  for (const pages of swept) assert.ok(pages > 0);
});

test("children whose relay's agent crashes have every page all the same", async () => {
  let relayed = 0;
  for (const seed of SEEDS) {
    const world = new World(seed, { ...CALM, bytesPerUs: 10, relays: [undefined, 0, 1] });
    // The host of the first child is the second of all.
    world.hosts[1]?.crashAtAct(40 + seed * 7);
    await world.play();
    relayed += world.relayed;
  }
  assert.ok(relayed > 0);
});
