import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog } from "../../src/base/index.js";
import type { GuestView } from "../../src/control/index.js";
import { GuestMemory, PrivateMemory } from "../../src/memory/index.js";
import { digestMemory, type PageDigests } from "../../src/transfer/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PAGES = 65_536;

describe("children that share their parent's memory", () => {
  let hosts: Hosts;
  let a: Host;
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { limits: { memoryMib: 2048 } } });
    a = hosts.at(0);
    await runSample(a, { name: "web", hostPort: 8080 });
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  const guestNamed = async (name: string): Promise<GuestView> => (await a.call("guest.show", { name })).guest;

  async function remove(...names: string[]): Promise<void> {
    for (const name of names) {
      await a.call("guest.kill", { name });
      await a.call("guest.remove", { name });
    }
  }

  /** What the child sees of its memory, through its own mapping. */
  async function digestsOf(child: string): Promise<PageDigests> {
    const [parent, { pid }] = [await guestNamed("web"), await guestNamed(child)];
    const of = { pid: parent.pid ?? 0, ramPath: join(a.memoryDirectory, parent.id, "ram"), log: silentLog };
    const file = GuestMemory.open(of);
    const memory = GuestMemory.openPrivate({ pid: pid ?? 0, file: file.file, log: silentLog });
    try {
      assert.ok(memory.private instanceof PrivateMemory);
      return await digestMemory(memory.private, realClock);
    } finally {
      file.close();
      memory.close();
    }
  }

  test("of one instant answer, and every page is as the parent's was", async () => {
    const parent = await ask(a, 8080);
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      count: 3,
      forwards: ["8090:80"],
      verify: true,
    });
    assert.deepEqual(
      transfers.map(({ state }) => state),
      ["running", "running", "running"],
    );
    await whenTransfersEnd(a);
    for (const { transfer } of transfers) {
      const view = (await a.call("transfer.show", { transfer })).transfer;
      assert.equal(view.phase, "complete", view.message);
      assert.deepEqual(view.verify, { checked: PAGES, mismatches: 0 });
      assert.equal(view.bytes.bulk + view.bytes.urgent, 0);
    }
    const ids = new Set<unknown>();
    for (const port of [8090, 8091, 8092]) {
      const child = await ask(a, port);
      assert.equal(child.boot_id, parent.boot_id);
      assert.equal(child.counter, parent.counter + 1, "it counts on from the same value");
      ids.add((await ask<{ id: unknown }>(a, port, "/vmgenid")).id ?? port);
    }
    assert.equal(ids.size, 3, "no two have the same generation id");
    assert.equal((await ask(a, 8080)).counter, parent.counter + 1);
    assert.equal((await guestNamed("web")).sharers, 3);
    const child = await guestNamed("web-1");
    assert.equal(child.sharesWith, "web");
    assert.ok(!existsSync(join(a.memoryDirectory, child.id, "ram")), "it has no memory file");
    await remove("web-1", "web-2", "web-3");
    assert.equal((await guestNamed("web")).sharers, undefined);
  });

  test("that never run keep what was there at the instant, while the parent writes all of it and the agent is killed", async () => {
    await ask(a, 8080, "/stamp/start?mib=60&fill=page");
    const fork = (names: string[]) =>
      a.call("guest.fork", { name: "web", names, paused: true, verify: true });
    const { transfers } = await fork(["left", "right"]);
    assert.equal((await guestNamed("left")).state, "paused");
    const was = await digestsOf("left");
    // Loading a device state writes the generation id of each, which no two share, and nothing else.
    const apart = (await digestsOf("right")).differences(was);
    assert.ok(apart.length <= 1, `pages ${apart.join(", ")} differ`);
    await fork(["later"]);
    const wasLater = await digestsOf("later");
    await eventually(
      "the parent has written what it writes",
      async () => (await ask<{ generation: number }>(a, 8080, "/stamp/status")).generation > 3,
    );
    await a.end("SIGKILL");
    await a.start();
    await eventually(
      "its writers go on",
      async () => (await ask<{ generation: number }>(a, 8080, "/stamp/status")).generation > 5,
    );
    for (const name of ["left", "right"])
      assert.deepEqual(
        (await digestsOf(name)).differences(was).filter((page) => !apart.includes(page)),
        [],
      );
    assert.deepEqual((await digestsOf("later")).differences(wasLater), []);
    assert.ok(wasLater.differences(was).length > 1000, "the instants differ");
    assert.equal((await guestNamed("web")).sharers, 3);
    assert.equal(transfers.length, 2);
    await ask(a, 8080, "/stamp/stop");
    // A held child can be let run by the next agent too.
    const [held] = transfers;
    await a.call("transfer.run", { transfer: held?.transfer ?? 0 });
    assert.equal((await guestNamed("left")).state, "running");
    await remove("left", "right", "later");
  });

  test("of a frozen parent start without a pause, and keep what they have when it is thawed", async () => {
    const before = await ask(a, 8080);
    assert.equal((await a.call("guest.freeze", { name: "web" })).guest.state, "frozen");
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      names: ["first", "second"],
      forwards: ["8090:80"],
      verify: true,
    });
    assert.deepEqual(
      transfers.map(({ state, pauseUs }) => [state, pauseUs]),
      [
        ["running", 0],
        ["running", 0],
      ],
    );
    await a.end("SIGKILL");
    await a.start();
    assert.equal((await guestNamed("web")).state, "frozen");
    assert.equal((await guestNamed("web")).sharers, 2);
    await a.call("guest.fork", { name: "web", names: ["third"], paused: true, verify: true });
    assert.equal((await ask(a, 8090)).counter, before.counter + 1);
    assert.equal((await ask(a, 8091)).counter, before.counter + 1);
    const was = await digestsOf("third");
    await assert.rejects(a.call("guest.stop", { name: "web" }), { code: "bad-state", message: /is frozen/ });
    await assert.rejects(a.call("guest.thaw", { name: "first" }), { code: "bad-state" });
    assert.equal((await a.call("guest.thaw", { name: "web" })).guest.state, "running");
    await ask(a, 8080, "/stamp/start?mib=60&fill=page");
    type Status = { generation: number };
    const status = () => ask<Status>(a, 8080, "/stamp/status");
    await eventually("the parent has written what it writes", async () => (await status()).generation > 8);
    await ask(a, 8080, "/stamp/stop");
    assert.deepEqual((await digestsOf("third")).differences(was), []);
    assert.equal((await ask(a, 8080)).counter, before.counter + 1);
    await remove("first", "second", "third");
  });

  test("can be frozen, and forked then", async () => {
    await a.call("guest.fork", { name: "web", names: ["heir"], forwards: ["8095:80"] });
    const before = await ask(a, 8095);
    assert.equal((await a.call("guest.freeze", { name: "heir" })).guest.state, "frozen");
    assert.equal((await guestNamed("web")).sharers, undefined, "the heir has all its pages for itself");
    await a.call("guest.fork", { name: "heir", names: ["one", "two"], forwards: ["8096:80"], verify: true });
    await a.end("SIGKILL");
    await a.start();
    await whenTransfersEnd(a);
    assert.equal((await guestNamed("heir")).state, "frozen");
    const { transfers } = await a.call("transfer.list", {});
    for (const { verify } of transfers.filter(({ guest, role }) => guest === "heir" && role === "parent"))
      assert.deepEqual(verify, { checked: PAGES, mismatches: 0 });
    for (const port of [8096, 8097]) assert.equal((await ask(a, port)).counter, before.counter + 1);
    await a.call("guest.thaw", { name: "heir" });
    assert.equal((await ask(a, 8095)).counter, before.counter + 1);
    await remove("one", "two", "heir");
  });

  test("keep what they share when their parent is removed, and can be parents themselves", async () => {
    await a.call("guest.fork", { name: "web", names: ["heir"], forwards: ["8095:80"] });
    await a.call("guest.fork", { name: "heir", names: ["grandchild"], forwards: ["8096:80"], verify: true });
    await whenTransfersEnd(a);
    assert.equal((await guestNamed("heir")).sharesWith, undefined, "it has memory of its own now");
    assert.equal((await guestNamed("web")).sharers, undefined);
    const before = await ask(a, 8095);
    assert.equal((await ask(a, 8096)).counter, before.counter);
    await a.call("guest.fork", { name: "web", names: ["orphan"], forwards: ["8097:80"] });
    await remove("web");
    await eventually("it answers", async () => (await ask(a, 8097)).counter > 0);
    await a.end("SIGKILL");
    await a.start();
    const counted = await ask(a, 8097);
    assert.equal((await ask(a, 8097)).counter, counted.counter + 1);
    assert.equal((await a.call("agent.info", {})).memory.availableBytes, (2048 - 4 * 256) * 1024 * 1024);
    await remove("orphan", "grandchild", "heir");
    assert.equal((await a.call("agent.info", {})).memory.availableBytes, 2048 * 1024 * 1024);
    assert.deepEqual(hosts.problems, []);
  });
});
