import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { Agent, get } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { eventually, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd, type Counter } from "../support/sample-guest.js";
import { removeGuest, transferOf, TwoHosts } from "../support/two-hosts.js";

const BRIDGE = "ramet-test0";
const SLOW = 256 * 1024;

describe("migrating by agents", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests();
  before(() => ({ a, b } = two));

  test("a guest goes to another host and back, with its ports, its identity and all its memory", async () => {
    await runSample(a, { name: "web", hostPort: 8080, cpus: 2 });
    let counter = (await ask(a, 8080)).counter;
    const identity = await ask<object>(a, 8080, "/vmgenid");
    for (const [from, to] of [
      [a, b],
      [b, a],
      [a, b],
    ] as const) {
      const id = (await from.guests()).get("web")?.id ?? "";
      const { transfers } = await from.call("guest.migrate", { name: "web", to: to.name, verify: true });
      assert.equal(transfers[0]?.state, "running");
      await whenTransfersEnd(from);
      const view = await transferOf(from, transfers[0]?.transfer ?? 0);
      assert.equal(view.phase, "complete", view.message);
      assert.equal(view.verify?.mismatches, 0);
      assert.ok(!(await from.guests()).has("web"), "it is listed where it runs, and nowhere else");
      assert.ok(!existsSync(join(from.memoryDirectory, id)), "the memory of the source is gone");
      await assert.rejects(from.call("guest.show", { name: "web" }), {
        code: "no-such-guest",
        message: `guest web was migrated to ${to.name}; ask there`,
      });
      await assert.rejects(ask(from, 8080), "nobody serves its port at the source");
      assert.equal((await to.guests()).get("web")?.id, id, "it is the same guest");
      counter += 1;
      assert.equal((await ask(to, 8080)).counter, counter);
      assert.deepEqual(await ask<object>(to, 8080, "/vmgenid"), identity);
    }
    await removeGuest(b, "web");
  });

  test("what cannot be migrated is refused with the reason, and the guest runs on with its ports", async () => {
    await runSample(a, { name: "stays", hostPort: 8080 });
    const runsOn = async (): Promise<void> => {
      const before = await ask(a, 8080);
      await eventually("time goes on in it", async () => (await ask(a, 8080)).ticks > before.ticks);
      await eventually("it is free", async () => (await a.guests()).get("stays")?.transfers.length === 0);
      assert.equal((await a.guests()).get("stays")?.state, "running");
    };
    await assert.rejects(a.call("guest.migrate", { name: "stays", to: "a" }), {
      code: "bad-request",
      message: /is on this host already/,
    });
    await assert.rejects(a.call("guest.migrate", { name: "stays", to: "127.0.0.99:1" }), {
      code: "prepare-failed",
    });
    await runsOn();

    await b.call("guest.run", { name: "stays", kernel: (await a.guests()).get("stays")?.kernel ?? "" });
    await assert.rejects(a.call("guest.migrate", { name: "stays", to: "b" }), {
      code: "prepare-failed",
      message: /has a guest stays already/,
    });
    await removeGuest(b, "stays");
    await runsOn();

    // Found out only when the parent has stopped and left its ports: everything is put back.
    const taken = createServer().listen(8080, b.address);
    await once(taken, "listening");
    await assert.rejects(a.call("guest.migrate", { name: "stays", to: "b" }), { message: /8080/ });
    taken.close();
    await once(taken, "close");
    await runsOn();
    assert.equal((await b.guests()).size, 0);
    await a.call("guest.migrate", { name: "stays", to: "b" });
    await whenTransfersEnd(a);
    await removeGuest(b, "stays");
  });

  test("after the switch it is not cancelled; when the child is lost, the operator may roll back", async () => {
    await runSample(a, { name: "dear", hostPort: 8080 });
    const first = await ask(a, 8080);
    const { transfers } = await a.call("guest.migrate", {
      name: "dear",
      to: "b",
      rateLimitBytesPerSecond: SLOW,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await assert.rejects(a.call("transfer.cancel", { transfer }), { code: "already-switched" });
    assert.equal((await a.guests()).get("dear")?.state, "migrated");
    await assert.rejects(a.call("guest.remove", { name: "dear" }), { code: "busy" });
    process.kill((await b.guests()).get("dear")?.pid ?? 0, "SIGKILL");
    await whenTransfersEnd(a);
    assert.equal((await transferOf(a, transfer)).phase, "failed");
    await eventually("it is kept", async () => (await a.guests()).get("dear")?.state === "paused");
    assert.match((await a.guests()).get("dear")?.message ?? "", /emulator on b .*rollback/);
    const { done, host, switchedAtMs } = await a.call("guest.rollback", { name: "dear", dryRun: true });
    assert.deepEqual([done, host, switchedAtMs === undefined], [false, "b", false]);
    assert.equal((await a.guests()).get("dear")?.state, "paused", "asking changes nothing");
    assert.equal((await a.call("guest.rollback", { name: "dear" })).done, true);
    assert.equal((await a.guests()).get("dear")?.state, "running");
    const again = await ask(a, 8080);
    assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
    await b.call("guest.remove", { name: "dear" });
    await removeGuest(a, "dear");
  });

  test("a child that is out of reach can be given up", async () => {
    await runSample(a, { name: "given", hostPort: 8080 });
    const { transfers } = await a.call("guest.migrate", {
      name: "given",
      to: "b",
      rateLimitBytesPerSecond: SLOW,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await b.end("SIGKILL");
    await eventually("it is given up", () =>
      a.call("transfer.cancel", { transfer }).then(
        () => true,
        (error: { code?: string }) => (assert.equal(error.code, "already-switched"), false),
      ),
    );
    await whenTransfersEnd(a);
    assert.equal((await transferOf(a, transfer)).phase, "cancelled");
    await eventually("it is kept", async () => (await a.guests()).get("given")?.state === "paused");
    // Its emulator runs on without an agent: nobody can say that it does not.
    await assert.rejects(a.call("guest.rollback", { name: "given" }), { code: "unconfirmed" });
    await assert.rejects(a.call("guest.rollback", { name: "given", force: true }), {
      code: "unconfirmed",
      message: /repeat with --force in \d+ s/,
    });
    assert.equal((await a.guests()).get("given")?.state, "paused");
    await b.start();
    await eventually(
      "its host stops the child",
      async () => (await b.guests()).get("given")?.state === "paused",
    );
    assert.match((await b.guests()).get("given")?.message ?? "", /its memory cannot be completed/);
    assert.equal((await a.call("guest.rollback", { name: "given" })).done, true);
    assert.equal((await ask(a, 8080)).counter, 1);
    await assert.rejects(a.call("guest.rollback", { name: "given" }), { code: "bad-state" });
    await b.call("guest.remove", { name: "given" });
    await removeGuest(a, "given");
  });

  test("a guest on a bridge keeps its connections, and its isolated child has none", async () => {
    const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });
    ip("link", "add", BRIDGE, "type", "bridge");
    try {
      ip("addr", "add", "10.99.7.1/24", "dev", BRIDGE);
      ip("link", "set", BRIDGE, "up");
      await runSample(a, {
        name: "bridged",
        network: { mode: "tap", bridge: BRIDGE },
        append: "ip=10.99.7.2::10.99.7.1:255.255.255.0:bridged",
      });
      const kept = new Agent({ keepAlive: true, maxSockets: 1 });
      const first = await askOver(kept);
      const { transfers } = await a.call("guest.fork", { name: "bridged", to: ["b"], names: ["alone"] });
      await whenTransfersEnd(a);
      assert.equal((await transferOf(a, transfers[0]?.transfer ?? 0)).phase, "complete");
      assert.equal(portsOf(BRIDGE).length, 1, "only the parent is on the bridge");
      assert.equal((await askOver(kept)).counter, first.counter + 1);
      const { transfers: moved } = await a.call("guest.migrate", { name: "bridged", to: "b" });
      const last = await askOver(kept);
      assert.equal(last.counter, first.counter + 2);
      assert.equal(last.reused, true, "over the same connection");
      await whenTransfersEnd(a);
      assert.equal((await transferOf(a, moved[0]?.transfer ?? 0)).phase, "complete");
      assert.equal(portsOf(BRIDGE).length, 1, "only the migrated guest is on the bridge");
      kept.destroy();
      await removeGuest(b, "bridged");
      await removeGuest(b, "alone");
      assert.deepEqual(portsOf(BRIDGE), []);
    } finally {
      ip("link", "del", BRIDGE);
    }
    assert.deepEqual(two.hosts.problems, []);
  });
});

/** Network devices on a bridge. */
function portsOf(bridge: string): string[] {
  const lines = execFileSync("ip", ["-o", "link", "show", "master", bridge], { encoding: "utf8" });
  return lines.split("\n").filter((line) => line !== "");
}

/** Asks the bridged guest over a connection that is kept. */
function askOver(agent: Agent): Promise<Counter & { reused: boolean }> {
  return new Promise((resolve, reject) => {
    const request = get(
      { host: "10.99.7.2", port: 80, path: "/counter", agent, timeout: 20_000 },
      (answer) => {
        let text = "";
        answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
        answer.on("end", () => resolve({ ...(JSON.parse(text) as Counter), reused: request.reusedSocket }));
      },
    );
    request.on("timeout", () => request.destroy(new Error("the guest does not answer")));
    request.on("error", reject);
  });
}
