import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { eventually, type Host } from "../support/hosts.js";
import { ask, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest, transferOf, TwoHosts } from "../support/two-hosts.js";

const PAGES = 65_536;
const STAMPED_MIB = 40;

describe("a frozen guest is forked to another host", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests({ web: true });
  before(async () => {
    ({ a, b } = two);
    await ask(a, 8080, `/stamp/start?mib=${STAMPED_MIB}&fill=page`);
    await eventually(
      "the guest has written all it is to write",
      async () => (await ask<{ generation: number }>(a, 8080, "/stamp/status")).generation > 0,
    );
    await ask(a, 8080, "/stamp/stop");
    assert.equal((await a.call("guest.freeze", { name: "web" })).guest.state, "frozen");
  });

  async function assertComplete(transfer: number): Promise<void> {
    await whenTransfersEnd(a);
    const view = await transferOf(a, transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: PAGES, mismatches: 0 });
  }

  async function assertStamped(host: Host, port: number): Promise<void> {
    type Verified = { checked: number; bad: number };
    const { checked, bad } = await ask<Verified>(host, port, "/stamp/verify?order=random");
    assert.deepEqual({ checked, bad }, { checked: STAMPED_MIB * 256, bad: 0 });
  }

  test("and to its own at the same instant, without a pause", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["a", "b"],
      names: ["near", "far"],
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
    const [near, far] = await Promise.all([ask(a, 8090), ask(b, 8091)]);
    assert.deepEqual([near.counter, near.boot_id], [far.counter, far.boot_id]);
    for (const { transfer } of transfers) await assertComplete(transfer);
    await assertStamped(b, 8091);
    await removeGuest(a, "near");
    await removeGuest(b, "far");
  });

  test("again, while its agent is killed, and is frozen still", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["far"],
      forwards: ["8091:80"],
      sweep: "held",
      verify: true,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await a.end("SIGKILL");
    await a.start();
    await ask(b, 8091);
    assert.equal((await transferOf(a, transfer)).phase, "paging");
    await assert.rejects(a.call("guest.thaw", { name: "web" }), { code: "busy" });
    await a.call("transfer.steer", { transfer, sweep: "on" });
    await assertComplete(transfer);
    assert.equal((await a.call("guest.show", { name: "web" })).guest.state, "frozen");
    await assertStamped(b, 8091);
  });

  test("and runs on itself when it is thawed, its child with what it had", async () => {
    const { counter } = await ask(b, 8091);
    assert.equal((await a.call("guest.thaw", { name: "web" })).guest.state, "running");
    await ask(a, 8080, `/stamp/start?mib=${STAMPED_MIB}&fill=page`);
    await assertStamped(b, 8091);
    assert.equal((await ask(b, 8091)).counter, counter + 1);
    await ask(a, 8080, "/stamp/stop");
    await assertStamped(a, 8080);
    await removeGuest(b, "far");
    assert.deepEqual(two.hosts.problems, []);
  });
});
