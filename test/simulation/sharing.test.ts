import { test } from "node:test";
import { SharingWorld } from "../support/simulation/sharing-world.js";

const schedules = Number(process.env["RAMET_SCHEDULES"] ?? "1000");
const firstSeed = Number(process.env["RAMET_SEED"] ?? "1");
/** Names the act at which the agent crashes, to play that alone. */
const onlyAct = process.env["RAMET_CRASHES"];
/** For so many schedules there is one small run that is played with a crash at each of its acts. */
const SCHEDULES_PER_SMALL = 50;

async function play(world: SharingWorld, how: string): Promise<void> {
  try {
    await world.play();
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.stack : String(thrown);
    const replay = `${how} RAMET_SCHEDULES=1 node --import tsx --test test/simulation/sharing.test.ts`;
    throw new Error(`failed: ${why}\nreplay it with: ${replay}\nstate: ${JSON.stringify(world.describe())}`, {
      cause: thrown,
    });
  }
}

async function playCrash(seed: number, act: number | undefined): Promise<SharingWorld> {
  const world = new SharingWorld(seed, { small: true });
  if (act !== undefined) world.host.crashAtAct(act);
  await play(world, `RAMET_SEED=${seed} RAMET_CRASHES=${act ?? 0}`);
  return world;
}

test(`${schedules} seeded parents whose children share their memory, from seed ${firstSeed}`, async (context) => {
  if (onlyAct !== undefined) return;
  const sums = { forks: 0, separated: 0, starved: 0, frozen: 0, crashes: 0 };
  for (let seed = firstSeed; seed < firstSeed + schedules; seed += 1) {
    const world = new SharingWorld(seed);
    await play(world, `RAMET_SEED=${seed}`);
    for (const [name, count] of Object.entries({ ...world.counts, crashes: world.host.crashes }))
      sums[name as keyof typeof sums] += count;
  }
  context.diagnostic(`played: ${JSON.stringify(sums)}`);
});

test(`an agent that crashes at every single act of sharing, from seed ${firstSeed}`, async () => {
  if (onlyAct !== undefined) return void (await playCrash(firstSeed, Number(onlyAct) || undefined));
  const runs = Math.max(1, Math.floor(schedules / SCHEDULES_PER_SMALL));
  for (let seed = firstSeed; seed < firstSeed + runs; seed += 1) {
    const { acts } = (await playCrash(seed, undefined)).host;
    for (let act = 1; act <= acts; act += 1) await playCrash(seed, act);
  }
});
