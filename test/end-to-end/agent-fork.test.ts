import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { statSync } from "node:fs";
import { realClock, silentLog } from "../../src/base/index.js";
import { RpcClient, type TransferView } from "../../src/control/index.js";
import { dial } from "../../src/lane/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const MIB = 1024 * 1024;

async function transferOf(host: Host, transfer: number): Promise<TransferView> {
  return (await host.call("transfer.show", { transfer })).transfer;
}

async function removeGuests(host: Host, ...names: string[]): Promise<void> {
  for (const name of names) {
    await host.call("guest.kill", { name });
    await host.call("guest.remove", { name });
  }
}

/** The parent answers, counts on and is idle: what a fork that failed must leave. */
async function assertRunsOn(host: Host, name: string, hostPort: number): Promise<void> {
  const before = await ask(host, hostPort);
  await eventually("time goes on in it", async () => (await ask(host, hostPort)).ticks > before.ticks);
  const guest = (await host.guests()).get(name);
  assert.equal(guest?.state, "running");
  await eventually(
    "no transfer holds it",
    async () => (await host.guests()).get(name)?.transfers.length === 0,
  );
}

describe("forking by agents", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2, { configuration: { limits: { memoryMib: 1536 } } });
    a = hosts.at(0);
    b = hosts.at(1);
    await runSample(a, { name: "web", hostPort: 8080 });
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  test("one instant, children on both hosts, every page as the parent's was", async () => {
    const parent = await ask(a, 8080);
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["a", "b"],
      count: 3,
      forwards: ["8090:80"],
      verify: true,
      memory: "copied",
    });
    assert.deepEqual(
      transfers.map(({ host, state }) => [host, state]),
      [
        ["a", "running"],
        ["b", "running"],
        ["a", "running"],
      ],
    );
    assert.equal(new Set(transfers.map(({ guest }) => guest)).size, 3);
    await whenTransfersEnd(a);
    for (const { transfer, host, guest } of transfers) {
      const view = await transferOf(a, transfer);
      assert.equal(view.phase, "complete", view.message);
      assert.equal(view.pages.received, view.pages.total);
      assert.deepEqual(view.verify, { checked: 65536, mismatches: 0 });
      assert.ok(view.faults !== undefined && view.faults.count > 0);
      const found = (await (host === "a" ? a : b).guests()).get(guest);
      assert.equal(found?.state, "running");
      assert.deepEqual(found?.parent, { guest: "web", host: "a", transfer });
    }
    const children = [await ask(a, 8090), await ask(b, 8091), await ask(a, 8092)];
    for (const child of children) {
      assert.equal(child.boot_id, parent.boot_id);
      assert.equal(child.counter, parent.counter + 1, "it counts on from the same value");
    }
    assert.equal((await ask(a, 8080)).counter, parent.counter + 1);
    const ids = new Set<unknown>();
    for (const [host, port] of [
      [a, 8080],
      [a, 8090],
      [b, 8091],
      [a, 8092],
    ] as const)
      ids.add((await ask<{ vmgenid: unknown; id: unknown }>(host, port, "/vmgenid")).id ?? port);
    assert.equal(ids.size, 4, "no two have the same generation id");
    await removeGuests(a, transfers[0]?.guest ?? "", transfers[2]?.guest ?? "");
    await removeGuests(b, transfers[1]?.guest ?? "");
  });

  test("a child reboots with the kernel its host was sent", async () => {
    await a.call("guest.fork", { name: "web", to: ["b"], names: ["rebooting"], forwards: ["8090:80"] });
    await whenTransfersEnd(a);
    const first = await ask(b, 8090);
    await ask(b, 8090, "/reboot").catch(() => {});
    await eventually("it is back", async () => {
      const again = await ask(b, 8090).catch(() => undefined);
      return again !== undefined && again.boot_id !== first.boot_id;
    });
    await removeGuests(b, "rebooting");
  });

  test("warm emulators are taken and refilled, and make room for guests", async () => {
    assert.deepEqual((await a.call("guest.warm", { name: "web", to: ["b"], count: 2 })).warm, [
      { host: "b", count: 2 },
    ]);
    assert.equal((await b.call("agent.info", {})).memory.availableBytes, 1024 * MIB);
    const { transfers } = await a.call("guest.fork", { name: "web", to: ["b"] });
    await whenTransfersEnd(a);
    await eventually(
      "another is started in its place",
      async () => (await b.call("agent.info", {})).memory.availableBytes === 768 * MIB,
    );
    const big = await runSample(b, { name: "big", memoryMiB: 1024 });
    assert.equal(big.state, "running");
    await removeGuests(b, "big", transfers[0]?.guest ?? "");
    assert.deepEqual((await a.call("guest.warm", { name: "web", to: ["b"], count: 0 })).warm, [
      { host: "b", count: 0 },
    ]);
    assert.equal((await b.call("agent.info", {})).memory.availableBytes, 1536 * MIB);
  });

  test("a held child runs when it is told to, a held sweep goes on", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["held"],
      paused: true,
      sweep: "held",
      workingSet: false,
      forwards: ["8090:80"],
    });
    const transfer = transfers[0]?.transfer ?? 0;
    assert.equal(transfers[0]?.state, "paused");
    assert.equal((await b.guests()).get("held")?.state, "receiving");
    const before = await transferOf(a, transfer);
    assert.equal(before.sweep, "held");
    assert.equal(before.pages.sweep, 0);
    await assert.rejects(a.call("guest.fork", { name: "web" }), {
      code: "busy",
      message: new RegExp(
        `guest web is busy with a fork to b \\(transfers ${transfer}\\): see it with .*ramet transfers`,
      ),
    });
    await assert.rejects(a.call("guest.migrate", { name: "web", to: "b" }), { code: "busy" });
    await assert.rejects(b.call("guest.fork", { name: "held" }), {
      code: "busy",
      message: /receiving its memory from a/,
    });
    await assert.rejects(b.call("guest.remove", { name: "held" }), { code: "busy" });
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await whenTransfersEnd(a);
    await eventually(
      "it is complete and waits",
      async () => (await b.guests()).get("held")?.state === "paused",
    );
    await a.call("transfer.run", { transfer });
    assert.equal((await b.guests()).get("held")?.state, "running");
    await ask(b, 8090);
    await removeGuests(b, "held");
  });

  test("a child fetches what it touches while the sweep is held, and is ended by a cancel", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["thin"],
      sweep: "held",
      workingSet: false,
      forwards: ["8090:80"],
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await ask(b, 8090);
    const view = await transferOf(a, transfer);
    assert.equal(view.phase, "paging");
    assert.ok(view.pages.fault > 0 && view.pages.sweep === 0, JSON.stringify(view.pages));
    const cancelled = await a.call("transfer.cancel", { transfer, reason: "changed my mind" });
    assert.equal(cancelled.transfer.id, transfer);
    await whenTransfersEnd(a);
    assert.equal((await transferOf(a, transfer)).phase, "cancelled");
    await eventually("the child is gone", async () => !(await b.guests()).has("thin"));
    await assertRunsOn(a, "web", 8080);
    await assert.rejects(a.call("transfer.cancel", { transfer }), {
      code: "bad-state",
      message: /is over \(cancelled\)/,
    });
  });

  test("a child whose emulator is killed fails on both sides, and the parent runs on", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["doomed"],
      sweep: "held",
    });
    const transfer = transfers[0]?.transfer ?? 0;
    process.kill((await b.guests()).get("doomed")?.pid ?? 0, "SIGKILL");
    await whenTransfersEnd(a);
    const view = await transferOf(a, transfer);
    assert.equal(view.phase, "failed");
    assert.match(view.error?.message ?? "", /the child's emulator on b (has )?ended/);
    await eventually(
      "its host says so too",
      async () => (await b.guests()).get("doomed")?.state === "crashed",
    );
    assert.equal((await transferOf(b, transfer)).phase, "failed");
    await assertRunsOn(a, "web", 8080);
    await b.call("guest.remove", { name: "doomed" });
  });

  test("a parent that is killed still gives its children what they lack", async () => {
    await a.call("guest.fork", {
      name: "web",
      names: ["second"],
      memory: "copied",
      forwards: ["8085:80"],
    });
    await whenTransfersEnd(a);
    const { transfers } = await a.call("guest.fork", {
      name: "second",
      to: ["b"],
      names: ["orphan"],
      sweep: "held",
      forwards: ["8090:80"],
    });
    await a.call("guest.kill", { name: "second" });
    assert.equal((await a.guests()).get("second")?.state, "stopped");
    await a.call("transfer.sweep", { transfer: transfers[0]?.transfer ?? 0, sweep: "on" });
    await whenTransfersEnd(a);
    assert.equal((await transferOf(a, transfers[0]?.transfer ?? 0)).phase, "complete");
    await ask(b, 8090);
    await a.call("guest.remove", { name: "second" });
    await removeGuests(b, "orphan");
  });

  test("what cannot be forked is refused with the reason, and the parent runs on", async () => {
    await assert.rejects(a.call("guest.fork", { name: "web", to: ["nowhere"] }), {
      code: "no-such-peer",
      message: /nowhere is neither a configured peer \(b\) nor HOST:PORT/,
    });
    await assert.rejects(a.call("guest.fork", { name: "web", to: ["127.0.0.99:7170"] }), {
      code: "prepare-failed",
      message: /host 127.0.0.99:7170 cannot take the child: .*cannot be reached/,
    });
    await assert.rejects(a.call("guest.fork", { name: "web", to: ["a"], names: ["web"] }), {
      code: "prepare-failed",
      message: /has a guest web already/,
    });
    await assert.rejects(a.call("guest.fork", { name: "web", to: ["b"], count: 7 }), {
      code: "prepare-failed",
      message:
        /host b cannot take the child: guest web-\d needs 256 MiB of memory, but the limit is 1536 MiB/,
    });
    await assert.rejects(a.call("guest.fork", { name: "web", to: ["a"], forwards: ["8080:80"] }), {
      code: "prepare-failed",
      message: /port 8080 on 127.0.0.11 is in use/,
    });
    assert.deepEqual([...(await b.guests()).keys()], [], "nothing of the children is left");
    assert.deepEqual([...(await a.guests()).keys()], ["web"]);
    await assertRunsOn(a, "web", 8080);
    assert.equal((await b.call("agent.info", {})).memory.availableBytes, 1536 * MIB);
  });

  test("an agent that stops leaves a transfer that takes too long to the next one", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["slow"],
      sweep: "held",
    });
    assert.equal(await a.end(), 0);
    assert.equal((await b.guests()).get("slow")?.state, "receiving");
    await a.start();
    await a.call("transfer.sweep", { transfer: transfers[0]?.transfer ?? 0, sweep: "on" });
    await whenTransfersEnd(a);
    assert.equal((await transferOf(a, transfers[0]?.transfer ?? 0)).phase, "complete");
    await eventually("it is complete", async () => (await b.guests()).get("slow")?.state === "running");
    await assertRunsOn(a, "web", 8080);
    for (const name of (await b.guests()).keys()) await removeGuests(b, name);
    assert.deepEqual(hosts.problems, []);
  });

  test("a child that was prepared and never started is removed when nobody is left to start it", async () => {
    const connection = await dial({
      url: `unix:${b.socket}`,
      hello: { purpose: "control", role: "peer" },
      clock: realClock,
      deadlineMs: 5000,
    });
    const peer = new RpcClient(connection, { clock: realClock, log: silentLog });
    // The boot files came with the earlier tests' children, and are kept for a while.
    const { transfers } = await a.call("guest.fork", { name: "web", to: ["b"], names: ["known"] });
    await whenTransfersEnd(a);
    const guest = (await b.guests()).get("known");
    assert.ok(guest !== undefined && transfers.length === 1);
    const bootFile = (path: string | undefined) => ({
      sha256: path?.split("/").at(-1) ?? "",
      sizeBytes: statSync(path ?? "").size,
    });
    const params = {
      transfer: 77,
      kind: "fork" as const,
      guest: {
        name: "abandoned",
        architecture: "x86_64" as const,
        machine: guest.machine,
        memoryBytes: guest.memoryBytes,
        cpus: 1,
        append: "",
        kernel: bootFile(guest.kernel),
        initrd: bootFile(guest.initrd),
        network: { mode: "none" as const },
        attached: false,
      },
      parent: { guest: "nobody", host: "nowhere" },
      emulatorVersion: "7.2.22",
      parentUrl: "ws://127.0.0.99:1",
      token: "0123456789abcdef",
      pageCount: 65536,
      verify: false,
      paused: false,
    };
    assert.deepEqual(await peer.call("peer.prepare", params, { deadlineMs: 30_000 }), {
      ready: true,
      missingFiles: [],
      takesAhead: true,
    });
    await assert.rejects(peer.call("peer.prepare", params, { deadlineMs: 30_000 }), { code: "busy" });
    assert.equal((await b.guests()).get("abandoned")?.state, "receiving");
    peer.close();
    await eventually("it is removed", async () => !(await b.guests()).has("abandoned"), 40_000);
    await removeGuests(b, "known");
  });
});
