import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const PAGES = 65_536;
const STAMPED_MIB = 40;

describe("a frozen guest is forked to another host", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2);
    a = hosts.at(0);
    b = hosts.at(1);
    await runSample(a, { name: "web", hostPort: 8080 });
    await ask(a, 8080, `/stamp/start?mib=${STAMPED_MIB}&fill=page`);
    await eventually(
      "the guest has written all it is to write",
      async () => (await ask<{ generation: number }>(a, 8080, "/stamp/status")).generation > 0,
    );
    await ask(a, 8080, "/stamp/stop");
    assert.equal((await a.call("guest.freeze", { name: "web" })).guest.state, "frozen");
  });
  after(() => hosts.stop());

  const viewOf = async (transfer: number): Promise<TransferView> =>
    (await a.call("transfer.show", { transfer })).transfer;

  async function assertComplete(transfer: number): Promise<void> {
    await whenTransfersEnd(a);
    const view = await viewOf(transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: PAGES, mismatches: 0 });
  }

  async function assertStamped(host: Host, port: number): Promise<void> {
    type Verified = { checked: number; bad: number };
    const { checked, bad } = await ask<Verified>(host, port, "/stamp/verify?order=random");
    assert.deepEqual({ checked, bad }, { checked: STAMPED_MIB * 256, bad: 0 });
  }

  async function removeFrom(host: Host, name: string): Promise<void> {
    await host.call("guest.kill", { name });
    await host.call("guest.remove", { name });
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
    await removeFrom(a, "near");
    await removeFrom(b, "far");
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
    assert.equal((await viewOf(transfer)).phase, "paging");
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
    await removeFrom(b, "far");
    assert.deepEqual(hosts.problems, []);
  });
});
