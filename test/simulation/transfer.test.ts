import { test } from "node:test";
import { SMALL_PLANS } from "../support/simulation/plan.js";
import { World } from "../support/simulation/world.js";

const schedules = Number(process.env["RAMET_SCHEDULES"] ?? "1000");
const firstSeed = Number(process.env["RAMET_SEED"] ?? "1");
/** Names the crashes of one small transfer, to play that alone: for each the number of a host, a colon, and that of one of its acts. */
const onlyCrashes = process.env["RAMET_CRASHES"];
/** For so many schedules there is one small transfer that is played with a crash at each of its acts. */
const SCHEDULES_PER_SMALL = 50;
/** An agent that crashes twice does so again so many acts later at the most: while it recovers. */
const SECOND_WITHIN_ACTS = 12;

interface Crash {
  host: number;
  act: number;
}

/** Plays a world to its end; an error says how to play it again. */
async function play(world: World, how: string): Promise<void> {
  try {
    await world.play();
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.stack : String(thrown);
    const replay = `${how} RAMET_SCHEDULES=1 node --import tsx --test test/simulation/transfer.test.ts`;
    throw new Error(
      `failed: ${why}\nreplay it with: ${replay}\nplan: ${JSON.stringify(world.plan)}\nstate: ${JSON.stringify(world.describe())}`,
    );
  }
}

/** Plays a small transfer in which agents crash at certain acts. */
async function playCrashes(seed: number, crashes: readonly Crash[]): Promise<World> {
  const world = new World(seed, SMALL_PLANS[seed % SMALL_PLANS.length]);
  for (const { host, act } of crashes) world.hosts[host]?.crashAtAct(act);
  const named = crashes.map(({ host, act }) => `${host}:${act}`).join();
  await play(world, `RAMET_SEED=${seed} RAMET_CRASHES=${named}`);
  return world;
}

/** What became of worlds, and how often. */
class Outcomes {
  readonly #counts = new Map<string, number>();
  #relayed = 0;

  add({ result, relayed }: World): void {
    this.#counts.set(result, (this.#counts.get(result) ?? 0) + 1);
    this.#relayed += relayed;
  }

  toString(): string {
    const outcomes = JSON.stringify(Object.fromEntries([...this.#counts].toSorted()));
    return `outcomes: ${outcomes}, and ${this.#relayed} pages came by relays`;
  }
}

test(`${schedules} seeded schedules of forks and migrations, from seed ${firstSeed}`, async (context) => {
  if (onlyCrashes !== undefined) return;
  const outcomes = new Outcomes();
  for (let seed = firstSeed; seed < firstSeed + schedules; seed += 1) {
    const world = new World(seed);
    await play(world, `RAMET_SEED=${seed}`);
    outcomes.add(world);
  }
  context.diagnostic(String(outcomes));
});

test(`agents that crash at every single act of small transfers, from seed ${firstSeed}`, async (context) => {
  if (onlyCrashes !== undefined) {
    const pairs = onlyCrashes.split(",").map((pair) => pair.split(":").map(Number));
    await playCrashes(
      firstSeed,
      pairs.map(([host = 0, act = 1]) => ({ host, act })),
    );
    return;
  }
  const outcomes = new Outcomes();
  const transfers = Math.max(1, Math.floor(schedules / SCHEDULES_PER_SMALL));
  for (let seed = firstSeed; seed < firstSeed + transfers; seed += 1) {
    const whole = await playCrashes(seed, []);
    for (const [host, { acts }] of whole.hosts.entries()) {
      for (let act = 1; act <= acts; act += 1) {
        outcomes.add(await playCrashes(seed, [{ host, act }]));
        const again = { host, act: act + 1 + (act % SECOND_WITHIN_ACTS) };
        outcomes.add(await playCrashes(seed, [{ host, act }, again]));
      }
    }
  }
  context.diagnostic(String(outcomes));
});
