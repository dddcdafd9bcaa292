/**
 * Disks of a guest that are written, flushed, forked, flattened, committed and handed over, while agents and emulators are killed: what a guest was told is on its disk is there, and nothing
 * but what it wrote. Real stores, a real emulator's block layer, and a model of what may be read. RAMET_CHAIN_RUNS=N plays N sequences, RAMET_CHAIN_SEED=S begins with that one,
 * RAMET_CHAIN_STEPS=N makes them that long, and RAMET_CHAIN_EVERY=1 crashes at every act.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { codeOf, messageOf, SeededRandom } from "../../src/base/index.js";
import { ChainWorld } from "../support/chain-world.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";

const RUNS = Number(process.env["RAMET_CHAIN_RUNS"] ?? 2);
const SEED = Number(process.env["RAMET_CHAIN_SEED"] ?? 1);
const STEPS = Number(process.env["RAMET_CHAIN_STEPS"] ?? 60);
const EVERY = process.env["RAMET_CHAIN_EVERY"] === "1";
const CALM_CODES = ["in-use", "cancelled", "gone", "chain-failed", "timeout", "bad-state"];
const WHO = ["agent", "emulator", "both"] as const;
const MOST_ACTS = 60;
const MOST_PLAYED_ACTS = 34;
/** So that the guest writes a good deal meanwhile. */
const SLOW_BPS = 4 * 1024 * 1024;
const DEEP = 9;

async function during(
  seed: number,
  body: (world: ChainWorld, random: SeededRandom) => Promise<void>,
): Promise<void> {
  const random = new SeededRandom(seed);
  const next = seed % 2 === 0 && missingNextEmulator() === false ? nextEmulator() : undefined;
  const emulator = next === undefined ? {} : { binary: next.path, data: next.dataDirectories };
  const world = new ChainWorld(mkdtempSync(join(tmpdir(), "rc-")), random, emulator);
  try {
    await world.start();
    await body(world, random);
    await world.checkAll();
  } finally {
    await world.stop();
  }
}

async function change(world: ChainWorld, random: SeededRandom): Promise<string> {
  const kind = random.chance(0.65) ? "commit" : "flatten";
  const disk = random.chance(0.8) ? "disk0" : undefined;
  const rateBps = random.chance(0.4) ? SLOW_BPS : undefined;
  const request = { kind, alone: random.chance(0.3), disk, rateBps } as const;
  const at = random.below(MOST_PLAYED_ACTS);
  const fate = random.below(10);
  const crash = fate < 4 ? { at, who: random.pick(WHO) } : fate === 4 ? { cancelAt: at } : undefined;
  const outcome = await world.change(request, crash);
  const error = outcome === "failed" ? world.lastError : undefined;
  if (error !== undefined && !CALM_CODES.includes(codeOf(error)))
    throw new Error(messageOf(error), { cause: error });
  const how = error === undefined ? outcome : messageOf(error);
  return `${kind}${request.alone ? " alone" : ""} ${JSON.stringify(crash)}: ${how}`;
}

/** A child that does not stay leaves a layer that nobody else stands on. */
async function fork(world: ChainWorld, random: SeededRandom): Promise<string> {
  const stays = random.chance(0.4);
  await world.fork({ stays });
  return stays ? "fork" : "fork, and remove the child";
}

async function step(world: ChainWorld, random: SeededRandom): Promise<string> {
  const kind = random.below(100);
  if (kind < 40) return (await world.write(), "write");
  if (kind < 50) return (await world.flush(), "flush");
  if (kind < 55) return (await world.read(), "read");
  if (kind < 68) return world.depth >= DEEP ? change(world, random) : fork(world, random);
  if (kind < 75) return (await world.removeChild(), "remove a child");
  if (kind < 78) return (await world.crash(), "crash");
  if (kind < 81) return (await world.newAgent(), "a new agent");
  if (kind < 84) return (await world.handOver(), "hand over");
  return change(world, random);
}

describe("chains of disks that change", () => {
  for (let seed = SEED; seed < SEED + RUNS; seed += 1) {
    test(`are what was written, sequence ${seed}`, async () => {
      const played: string[] = [];
      try {
        await during(seed, async (world, random) => {
          for (let count = 0; count < STEPS; count += 1) played.push(await step(world, random));
        });
      } catch (error) {
        throw new Error(`RAMET_CHAIN_SEED=${seed} RAMET_CHAIN_RUNS=1\n${played.join("\n")}`, {
          cause: error,
        });
      }
    });
  }

  for (const kind of EVERY ? (["flatten", "commit"] as const) : [])
    for (const who of WHO)
      test(`are whole when ${who} ends at any act of a ${kind}`, async () => {
        await during(SEED, async (world) => {
          const prepare = async (): Promise<void> => {
            if (world.depth > DEEP) await world.change({ kind: "flatten", alone: false });
            for (let count = 0; count < 3; count += 1) {
              for (let writes = 0; writes < 4; writes += 1) await world.write();
              await world.fork({ stays: false });
            }
            await world.flush();
          };
          for (let at = 0; at < MOST_ACTS; at += 1) {
            await prepare();
            const outcome = await world.change({ kind, alone: at % 2 === 1, disk: "disk0" }, { at, who });
            if (outcome === "done" && world.lastActs < at) return;
          }
          assert.fail(`a ${kind} has more than ${MOST_ACTS} acts`);
        });
      });
});
