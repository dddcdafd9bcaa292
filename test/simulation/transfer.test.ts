import { test } from "node:test";
import { World } from "../support/simulation/world.js";

const schedules = Number(process.env["RAMET_SCHEDULES"] ?? "1000");
const firstSeed = Number(process.env["RAMET_SEED"] ?? "1");

test(`${schedules} seeded schedules of forks and migrations, from seed ${firstSeed}`, async (context) => {
  const results = new Map<string, number>();
  for (let seed = firstSeed; seed < firstSeed + schedules; seed += 1) {
    const world = new World(seed);
    try {
      await world.play();
    } catch (thrown) {
      const how = `RAMET_SEED=${seed} RAMET_SCHEDULES=1 node --import tsx --test test/simulation/transfer.test.ts`;
      const why = thrown instanceof Error ? thrown.stack : String(thrown);
      throw new Error(
        `seed ${seed} failed: ${why}\nreplay it with: ${how}\nplan: ${JSON.stringify(world.plan)}\nstate: ${JSON.stringify(world.describe())}`,
      );
    }
    results.set(world.result, (results.get(world.result) ?? 0) + 1);
  }
  context.diagnostic(`outcomes: ${JSON.stringify(Object.fromEntries(results))}`);
});
