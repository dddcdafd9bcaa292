import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PORT = 8196;
const SLOW = 256 * 1024;

describe("a migration that has switched", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2, { port: 7196, configuration: { limits: { migrationLeaseSeconds: 1 } } });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  cleanAfterFailures(() => hosts);
  afterEach(async () => {
    for (const host of [a, b]) await host.removeGuests();
  });
  after(() => hosts.stop());

  const removed = (host: Host, name = "web") =>
    host.call("guest.remove", { name }).then(
      () => true,
      () => false,
    );
  const stateAt = async (host: Host) => (await host.guests()).get("web")?.state;
  const migrate = () =>
    a.call("guest.migrate", { name: "web", to: "b", rateLimitBytesPerSecond: SLOW, compression: "none" });

  /** Whether the guest answers, for which it is given a while. Nothing is counted by it: one that goes on later may still read the question. */
  async function runs(host: Host): Promise<boolean> {
    const signal = AbortSignal.timeout(2000);
    return fetch(`http://${host.address}:${PORT}/stamp/status`, { signal }).then(
      () => true,
      () => false,
    );
  }

  test("is rolled back while the child runs: that stands still for good, and the parent goes on from the switch", async () => {
    await runSample(a, { name: "web", memoryMiB: 128, hostPort: PORT });
    const atSwitch = await ask(a, PORT);
    await migrate();
    for (const more of [1, 2, 3]) assert.equal((await ask(b, PORT)).counter, atSwitch.counter + more);
    const preview = await a.call("guest.rollback", { name: "web", dryRun: true });
    assert.deepEqual([preview.host, preview.done], ["b", false]);
    assert.equal(await stateAt(a), "migrated");
    assert.equal((await a.call("guest.rollback", { name: "web" })).done, true);
    const again = await ask(a, PORT);
    assert.deepEqual([again.boot_id, again.counter], [atSwitch.boot_id, atSwitch.counter + 1]);
    assert.equal(await stateAt(b), "paused");
    assert.match((await b.guests()).get("web")?.message ?? "", /rolled back: web runs on a again/);
    // It was stopped while it was still given the pages it waited for; without them that takes until its deadline, and nobody has the guest meanwhile.
    assert.doesNotMatch(b.log, /could not be stopped/);
    assert.equal(await runs(b), false, "one of them runs, and only one");
    // Neither agent's end changes that.
    for (const host of [a, b]) {
      await host.end("SIGKILL");
      await host.start();
    }
    assert.deepEqual([await stateAt(a), await stateAt(b)], ["running", "paused"]);
    assert.equal((await ask(a, PORT)).counter, again.counter + 1);
    assert.equal(await runs(b), false);
  });

  test("has a child that stands still when the parent's host is away for longer than the lease, and goes on when it is back", async () => {
    await runSample(a, { name: "web", memoryMiB: 128, hostPort: PORT });
    const { counter } = await ask(a, PORT);
    await migrate();
    assert.equal((await ask(b, PORT)).counter, counter + 1);
    await a.end("SIGKILL");
    await eventually("it says that it stands still", async () =>
      /stands still until a is back/.test((await b.guests()).get("web")?.message ?? ""),
    );
    // An operator may let the parent run by now: a new agent must not let the child run as well.
    await b.end("SIGKILL");
    await b.start();
    assert.equal(await runs(b), false);
    await a.start();
    await eventually("it goes on", async () => (await b.guests()).get("web")?.message === undefined);
    assert.equal((await ask(b, PORT)).counter, counter + 2);
    assert.equal(await stateAt(a), "migrated");
    assert.equal((await a.call("guest.rollback", { name: "web" })).done, true);
    assert.equal((await ask(a, PORT)).counter, counter + 1);
  });

  test("keeps its parent stopped when the child ran and is gone, though nobody but its host's notes knows that", async () => {
    await runSample(a, { name: "web", memoryMiB: 128, hostPort: PORT });
    const { counter } = await ask(a, PORT);
    const { guest } = await a.call("guest.show", { name: "web" });
    const { transfers } = await migrate();
    assert.equal((await ask(b, PORT)).counter, counter + 1);
    await a.end("SIGKILL");
    // As if that agent had ended before the answer came that the child runs.
    const record = join(a.memoryDirectory, guest.id, `transfer-${transfers[0]?.transfer ?? 0}-parent.json`);
    const kept = JSON.parse(readFileSync(record, "utf8")) as object;
    writeFileSync(record, JSON.stringify({ ...kept, step: "told" }));
    await b.call("guest.kill", { name: "web" });
    // Whether the lack of its pages or the end of its emulator is seen first.
    assert.match((await stateAt(b)) ?? "gone", /^(stopped|crashed)$/);
    await eventually("it is removed", () => removed(b));
    await b.end("SIGKILL");
    await b.start();
    await a.start();
    let said: string | undefined;
    const isKnown = async (): Promise<boolean> => {
      said = (await a.guests()).get("web")?.message;
      return /has run on b; it is there no more/.test(said ?? "");
    };
    // It is asked ever less often, up to every 15 s.
    await eventually("it is known that the child ran", isKnown, 90_000).catch((error: unknown) => {
      throw new Error(`its parent says: ${said}, and its agent:\n${a.log.slice(-4000)}`, { cause: error });
    });
    assert.deepEqual([await stateAt(a), await runs(a)], ["paused", false]);
    // It had not all its memory, so it cannot have gone on from there: no word of the operator is needed.
    assert.equal((await a.call("guest.rollback", { name: "web" })).done, true);
    assert.equal((await ask(a, PORT)).counter, counter + 1);
  });

  test("is nothing to undo before there is one, or when it is over", async () => {
    await runSample(a, { name: "web", memoryMiB: 128, hostPort: PORT });
    await assert.rejects(a.call("guest.rollback", { name: "web" }), { code: "bad-state" });
    await a.call("guest.migrate", { name: "web", to: "b" });
    await eventually("it is complete", async () => !(await a.guests()).has("web"));
    await assert.rejects(a.call("guest.rollback", { name: "web" }), { code: "no-such-guest" });
    assert.deepEqual(hosts.problems, []);
  });
});
