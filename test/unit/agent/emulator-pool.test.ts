import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { describe, test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { configOf, specKey } from "../../../src/agent/guests/child-spec.js";
import { EmulatorPool } from "../../../src/agent/guests/emulator-pool.js";
import { ManualClock } from "../../support/lane-clock.js";
import { fakeLive, fakeSpec } from "./fakes.js";

function makePool(bound = 4) {
  const clock = new ManualClock();
  const started: ReturnType<typeof fakeLive>[] = [];
  let failing = false;
  const pool = new EmulatorPool({
    start: async () => {
      await turn();
      if (failing) throw new Error("no emulator");
      const live = fakeLive();
      started.push(live);
      return live.live;
    },
    discard: async (live) => live.end(),
    bound,
    idleMs: 60_000,
    clock,
    log: silentLog,
  });
  const running = (): number => started.filter((live) => !live.ended()).length;
  return { pool, clock, started, running, fail: (value: boolean) => (failing = value) };
}

describe("the pool of warm emulators", () => {
  test("gives out what fits and starts another in its place, not before the taken one has had the processor", async () => {
    const { pool, clock, started } = makePool();
    assert.equal(await pool.warm(fakeSpec(), 2), 2);
    assert.equal(pool.take(fakeSpec({ memoryBytes: 1 })), undefined);
    assert.equal(pool.take(fakeSpec()), started[0]?.live);
    await turn();
    assert.equal(pool.size, 1);
    clock.advance(2000);
    await turn();
    await turn();
    assert.equal(pool.size, 2);
    await pool.close();
    assert.equal(clock.pending, 0);
  });

  test("starts others the later the more were taken, whose children all need the processor", async () => {
    const { pool, clock } = makePool(16);
    assert.equal(await pool.warm(fakeSpec(), 16), 16);
    for (let taken = 0; taken < 16; taken += 1) assert.ok(pool.take(fakeSpec()) !== undefined);
    clock.advance(2000);
    for (let count = 0; count < 32; count += 1) await turn();
    assert.equal(pool.size, 0);
    clock.advance(1000);
    for (let count = 0; count < 32; count += 1) await turn();
    assert.equal(pool.size, 16);
    await pool.close();
  });

  test("keeps nothing warm that nobody asked for", () => {
    const { pool } = makePool();
    assert.equal(pool.take(fakeSpec()), undefined);
    assert.equal(pool.size, 0);
  });

  test("never holds more than its bound, however many ask at once", async () => {
    const { pool, running } = makePool(3);
    const counts = await Promise.all([
      pool.warm(fakeSpec(), 2),
      pool.warm(fakeSpec({ cpus: 2 }), 2),
      pool.warm(fakeSpec({ cpus: 3 }), 2),
    ]);
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      3,
    );
    assert.equal(running(), 3);
    await pool.close();
    assert.equal(running(), 0);
  });

  test("ends those above a smaller count, and all for none", async () => {
    const { pool, running } = makePool();
    await pool.warm(fakeSpec(), 3);
    assert.equal(await pool.warm(fakeSpec(), 1), 1);
    assert.equal(running(), 1);
    assert.equal(await pool.warm(fakeSpec(), 0), 0);
    assert.equal(running(), 0);
  });

  test("makes room, longest unused first, and does not fill it again at once", async () => {
    const { pool, clock, started } = makePool();
    await pool.warm(fakeSpec(), 1);
    clock.advance(10);
    await pool.warm(fakeSpec({ cpus: 2 }), 1);
    await pool.evictUntil(() => started.some((live) => live.ended()));
    assert.deepEqual(
      started.map((live) => live.ended()),
      [true, false],
    );
    clock.advance(5000);
    await turn();
    assert.equal(pool.size, 1);
    await pool.close();
  });

  test("ends what nobody used for the idle time", async () => {
    const { pool, clock, running } = makePool();
    await pool.warm(fakeSpec(), 2);
    clock.advance(59_000);
    assert.equal(running(), 2);
    clock.advance(10_000);
    await turn();
    assert.equal(running(), 0);
    assert.equal(clock.pending, 0, "an empty pool waits for nothing");
  });

  test("forgets one that ends by itself, and says when none can be started", async () => {
    const { pool, started, fail } = makePool();
    await pool.warm(fakeSpec(), 1);
    started[0]?.end();
    await turn();
    assert.equal(pool.take(fakeSpec()), undefined);
    fail(true);
    await assert.rejects(pool.warm(fakeSpec(), 1), /no emulator/);
    await pool.close();
  });
});

describe("what a warm emulator fits", () => {
  test("is all of its command line but what is its own", () => {
    const key = specKey(fakeSpec());
    assert.equal(specKey(fakeSpec({ kernel: { sha256: "a".repeat(64), path: "/elsewhere" } })), key);
    const others = [
      { architecture: "aarch64" as const },
      { machine: "pc-q35-8.0" },
      { memoryBytes: 1 },
      { cpus: 2 },
      { append: "quiet" },
      { kernel: { sha256: "b".repeat(64), path: "/boot/a" } },
      { initrd: { sha256: "b".repeat(64), path: "/boot/b" } },
      { network: { mode: "user" as const, mac: "52:54:00:00:00:01" } },
      { network: { mode: "isolated" as const, mac: "52:54:00:00:00:02" } },
      { vmgenid: "01234567-89ab-4cde-8f01-23456789abcd" },
      { id: "01234567-89ab-4cde-8f01-23456789abcd" },
    ];
    assert.equal(
      new Set([key, ...others.map((change) => specKey(fakeSpec(change)))]).size,
      others.length + 1,
    );
  });

  test("a fork's child is somebody else, a migrated guest is who it was", () => {
    const first = configOf(fakeSpec(), "warm");
    const second = configOf(fakeSpec(), "warm");
    assert.notEqual(first.id, second.id);
    assert.notEqual(first.vmgenid, second.vmgenid);
    const vmgenid = "01234567-89ab-4cde-8f01-23456789abcd";
    assert.equal(configOf(fakeSpec({ vmgenid }), "warm").vmgenid, vmgenid);
    assert.equal(configOf(fakeSpec({ id: vmgenid }), "warm").id, vmgenid);
    assert.equal(configOf(fakeSpec({ architecture: "aarch64" }), "warm").vmgenid, undefined);
    const tap = configOf(fakeSpec({ network: { mode: "tap", mac: "52:54:00:00:00:01" } }), "warm");
    assert.ok(tap.network.mode === "tap" && tap.network.bridge === undefined, "on no bridge before it runs");
  });
});
