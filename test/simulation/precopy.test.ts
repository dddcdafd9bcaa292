import { test } from "node:test";
import { PrecopyWorld } from "../support/simulation/precopy-world.js";

const schedules = Number(process.env["RAMET_SCHEDULES"] ?? "1000");
const firstSeed = Number(process.env["RAMET_SEED"] ?? "1");

test(`${schedules} seeded migrations that copy ahead, from seed ${firstSeed}`, async (context) => {
  const results = new Map<string, number>();
  for (let seed = firstSeed; seed < firstSeed + schedules; seed += 1) {
    try {
      const result = await new PrecopyWorld(seed).play();
      results.set(result, (results.get(result) ?? 0) + 1);
    } catch (thrown) {
      const how = `RAMET_SEED=${seed} RAMET_SCHEDULES=1 node --import tsx --test test/simulation/precopy.test.ts`;
      const why = thrown instanceof Error ? thrown.stack : String(thrown);
      throw new Error(`seed ${seed} failed: ${why}\nreplay it with: ${how}`, { cause: thrown });
    }
  }
  context.diagnostic(`outcomes: ${JSON.stringify(Object.fromEntries(results))}`);
});
