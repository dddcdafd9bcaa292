import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd, type Counter } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PORT = 8080;
const CHILD_PORT = 8090;
/** The sample guest's memory takes some seconds at this rate. */
const RATE = 24 * 1024 * 1024;

/** What the sample guest says of its stamped pages. */
interface Verdict {
  checked: number;
  bad: number;
}

describe("a parent's emulator ends, and then its agent", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  let first: Counter;
  before(async () => {
    hosts = await Hosts.start(2);
    a = hosts.at(0);
    b = hosts.at(1);
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  beforeEach(async () => {
    await runSample(a, { name: "web", hostPort: PORT });
    first = await ask(a, PORT);
  });
  afterEach(async () => {
    for (const host of [a, b]) await host.removeGuests();
  });

  /** A child that has what it touches alone. Returns the transfer. */
  async function fork(): Promise<number> {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["web-1"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      sweep: "held",
    });
    return transfers[0]?.transfer ?? 0;
  }

  async function show(transfer: number): Promise<TransferView> {
    return (await a.call("transfer.show", { transfer })).transfer;
  }

  async function endEmulator(): Promise<void> {
    const { pid } = (await a.guests()).get("web") ?? {};
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
  }

  async function restart(host: Host): Promise<void> {
    await host.end("SIGKILL");
    await host.start();
  }

  /** The child gets the rest of the memory as it was, and then nothing of the parent is left but its name. */
  async function completes(transfer: number): Promise<void> {
    assert.equal((await show(transfer)).phase, "paging");
    assert.deepEqual((await a.guests()).get("web")?.transfers, [transfer]);
    await assert.rejects(a.call("guest.remove", { name: "web" }), { code: "busy" });
    const before = await ask(b, CHILD_PORT);
    assert.equal(before.boot_id, first.boot_id);
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await whenTransfersEnd(a);
    const view = await show(transfer);
    assert.equal(view.phase, "complete", view.error?.message);
    assert.deepEqual(view.verify, { checked: view.pages.total, mismatches: 0 });
    assert.equal((await ask(b, CHILD_PORT)).counter, before.counter + 1);
    assert.match((await a.guests()).get("web")?.state ?? "", /crashed|stopped/);
    await eventually("its memory is removed", () => memoryOf(a).length === 0);
  }

  const memoryOf = (host: Host): string[] =>
    readdirSync(host.memoryDirectory).filter((name) => name !== "lock");

  for (const { how, end } of [
    { how: "killed", end: endEmulator },
    { how: "powered off", end: () => a.call("guest.stop", { name: "web" }) },
    { how: "killed while it is frozen", end: endEmulator },
  ])
    test(`its agent sends the children of one that is ${how} what they lack`, async () => {
      if (how.includes("frozen")) await a.call("guest.freeze", { name: "web" });
      const transfer = await fork();
      if (!how.includes("frozen")) for (let times = 0; times < 3; times += 1) await ask(a, PORT);
      await end();
      const ended = async () => /crashed|stopped/.test((await a.guests()).get("web")?.state ?? "");
      await eventually("it is seen", ended);
      await completes(transfer);
    });

  test("of one with memory that it once shared nothing is left, and its children are told so", async () => {
    await a.call("guest.fork", { name: "web", names: ["heir"] });
    const { transfers } = await a.call("guest.fork", {
      name: "heir",
      to: ["b"],
      names: ["web-1"],
      sweep: "held",
    });
    const transfer = transfers[0]?.transfer ?? 0;
    process.kill((await a.guests()).get("heir")?.pid ?? 0, "SIGKILL");
    await eventually("it is seen", async () => (await a.guests()).get("heir")?.state === "crashed");
    // Nobody may have asked for a page yet.
    await a.call("transfer.sweep", { transfer, sweep: "on" }).catch(() => {});
    await whenTransfersEnd(a);
    const view = await show(transfer);
    assert.equal(view.phase, "failed");
    assert.match(view.error?.message ?? "", /has ended/);
    await eventually("its child is ended", async () => (await b.guests()).get("web-1")?.state === "crashed");
    assert.equal((await a.guests()).get("web")?.state, "running");
  });

  test("the next agent sends its children what they lack", async () => {
    const transfer = await fork();
    assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 1);
    for (let times = 0; times < 3; times += 1) await ask(a, PORT);
    await endEmulator();
    await eventually("it is seen", async () => (await a.guests()).get("web")?.state === "crashed");
    assert.equal((await show(transfer)).phase, "paging");
    await restart(a);
    await completes(transfer);
  });

  test("so does it when nobody saw the end, with copies no child has yet, and the agent after it", async () => {
    // So slow that it takes seconds to come round: what is written after the child's agent is killed is what the child lacks.
    await ask(a, PORT, "/stamp/start?mib=96&fill=page&rate=16");
    await eventually("all of it is written once", async () => {
      const { generation } = await ask<{ generation: number }>(a, PORT, "/stamp/status");
      return generation > 0;
    });
    const transfer = await fork();
    await b.end("SIGKILL");
    const copied = async (): Promise<number> => (await show(transfer)).copies?.pages ?? 0;
    await eventually("the parent writes what its child lacks", async () => (await copied()) > 100);
    const emulator = (await a.guests()).get("web")?.pid ?? 0;
    await a.end("SIGKILL");
    process.kill(emulator, "SIGKILL");
    await a.start();
    assert.match((await a.guests()).get("web")?.message ?? "", /while no agent was running/);
    assert.ok((await copied()) > 100, "copies are kept");
    await b.start();
    await eventually("it is linked", async () => (await show(transfer)).link?.state === "linked");
    await restart(a);
    await eventually("it is linked again", async () => (await show(transfer)).link?.state === "linked");
    await completes(transfer);
    const { checked, bad } = await ask<Verdict>(b, CHILD_PORT, "/stamp/verify?order=random");
    assert.ok(checked > 0);
    assert.equal(bad, 0);
  });

  test("a guest that was migrated gets the rest of its memory", async () => {
    const { transfers } = await a.call("guest.migrate", {
      name: "web",
      to: "b",
      verify: true,
      rateLimitBytesPerSecond: RATE,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await endEmulator();
    await eventually("it is seen", async () => (await a.guests()).get("web")?.state === "crashed");
    await restart(a);
    assert.equal((await show(transfer)).phase, "paging");
    await whenTransfersEnd(a);
    const view = await show(transfer);
    assert.equal(view.phase, "complete", view.error?.message);
    assert.deepEqual(view.verify, { checked: view.pages.total, mismatches: 0 });
    assert.equal((await ask(b, PORT)).counter, first.counter + 1);
    assert.equal((await a.guests()).has("web"), false);
    assert.deepEqual(memoryOf(a), []);
  });
});
