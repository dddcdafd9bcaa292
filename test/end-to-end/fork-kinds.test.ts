import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Hosts, type Host } from "../support/hosts.js";
import { ask, missingSampleGuest, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const PARENT_PORT = 8140;
const CHILD_PORT = 8150;

describe("kinds of guests", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2, { port: 7173 });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  afterEach(async () => {
    for (const host of hosts.all) await host.removeGuests();
  });
  after(() => hosts.stop());

  async function forkAndCheck(pages: number): Promise<void> {
    const parent = await ask(a, PARENT_PORT);
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["b"],
      names: ["child"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
    });
    await whenTransfersEnd(a, 240_000);
    const { transfer } = await a.call("transfer.show", { transfer: transfers[0]?.transfer ?? 0 });
    assert.equal(transfer.phase, "complete", transfer.message);
    assert.deepEqual(transfer.verify, { checked: pages, mismatches: 0 });
    const child = await ask(b, CHILD_PORT);
    assert.equal(child.counter, parent.counter + 1, "the child counts on from its parent's value");
    assert.equal(
      (await ask(a, PARENT_PORT)).counter,
      parent.counter + 1,
      "and so does the parent, on its own",
    );
  }

  const skip = missingSampleGuest("aarch64");
  test("an aarch64 guest on this host, whatever that is, forks and its child serves", { skip }, async () => {
    await runSample(a, { name: "parent", architecture: "aarch64", memoryMiB: 256, hostPort: PARENT_PORT });
    await forkAndCheck(65_536);
  });

  test("a guest of 2 GiB with two processors", async () => {
    await runSample(a, { name: "parent", memoryMiB: 2048, cpus: 2, hostPort: PARENT_PORT });
    await ask(a, PARENT_PORT, "/stamp/start?mib=100&fill=page");
    await forkAndCheck(524_288);
    const { bad } = await ask<{ bad: number }>(b, CHILD_PORT, "/stamp/verify?order=random");
    assert.equal(bad, 0);
  });
});
