import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PORT = 8178;
const MIB_STAMPED = 64;

interface Verdict {
  checked: number;
  bad: number;
}

async function verified(host: Host): Promise<void> {
  const { checked, bad } = await ask<Verdict>(host, PORT, "/stamp/verify?order=random");
  assert.deepEqual({ checked, bad }, { checked: MIB_STAMPED * 256, bad: 0 });
}

describe("a migration that copies ahead", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2, { port: 7190 });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  async function migrate(from: Host, to: Host): Promise<TransferView> {
    const { transfers } = await from.call("guest.migrate", {
      name: "busy",
      to: to.name,
      precopy: true,
      verify: true,
    });
    assert.equal(transfers[0]?.state, "running");
    await whenTransfersEnd(from, 120_000);
    const { transfer } = await from.call("transfer.show", { transfer: transfers[0]?.transfer ?? 0 });
    assert.equal(transfer.phase, "complete", transfer.message);
    assert.deepEqual(transfer.verify, { checked: 65_536, mismatches: 0 });
    assert.ok(!(await from.guests()).has("busy"));
    return transfer;
  }

  test("leaves little to be sent after the switch, and ends whatever the guest writes", async () => {
    await runSample(a, { name: "busy", memoryMiB: 256, cpus: 2, hostPort: PORT });
    const { counter } = await ask(a, PORT);
    await ask(a, PORT, `/stamp/start?mib=${MIB_STAMPED}&fill=page&rate=1`);
    const calm = await migrate(a, b);
    const { round, sent, due } = calm.precopy ?? { round: 0, sent: 0, due: 0 };
    assert.ok(round >= 1 && sent >= 65_536, `all memory is sent ahead once: ${JSON.stringify(calm.precopy)}`);
    assert.ok(due < 32_768, `most of it is there at the switch: ${due} pages are not`);
    assert.ok(
      // A page that is asked for while it is under way is sent twice, and the last of those may not be counted any more.
      calm.pages.fault + calm.pages.sweep - calm.pages.duplicates <= due + 64,
      `only the rest is sent afterwards: ${JSON.stringify(calm)}`,
    );
    assert.equal((await ask(b, PORT)).counter, counter + 1);
    await verified(b);

    await ask(b, PORT, "/stamp/stop");
    await ask(b, PORT, `/stamp/start?mib=${MIB_STAMPED}&fill=page&rate=0`);
    const hard = await migrate(b, a);
    assert.ok((hard.precopy?.round ?? 9) <= 8, "rounds are bounded");
    assert.equal((await ask(a, PORT)).counter, counter + 2);
    await verified(a);
  });

  test("fails when the child's agent ends while it copies, and the guest runs on", async () => {
    const migration = a.call("guest.migrate", {
      name: "busy",
      to: "b",
      precopy: true,
      rateLimitBytesPerSecond: 256 * 1024,
    });
    migration.catch(() => {});
    await eventually("it copies ahead", async () => {
      const { transfers } = await a.call("transfer.list", { active: true });
      return transfers.some(({ phase, pages }) => phase === "precopying" && pages.received > 0);
    });
    await b.end("SIGKILL");
    await b.start();
    await assert.rejects(migration, { code: "child-failed" });
    assert.equal((await a.guests()).get("busy")?.state, "running");
    assert.equal((await b.guests()).size, 0);
    await verified(a);
  });

  test("may be cancelled while it copies, and the guest runs on as if nothing had been", async () => {
    const migration = a.call("guest.migrate", {
      name: "busy",
      to: "b",
      precopy: true,
      rateLimitBytesPerSecond: 256 * 1024,
    });
    migration.catch(() => {});
    let view: TransferView | undefined;
    await eventually("it copies ahead", async () => {
      const { transfers } = await a.call("transfer.list", { active: true });
      view = transfers.find(({ phase }) => phase === "precopying");
      return (view?.pages.received ?? 0) > 0;
    });
    await a.call("transfer.cancel", { transfer: view?.id ?? 0 });
    await assert.rejects(migration, { code: "cancelled" });
    await eventually("the child is gone", async () => (await b.guests()).size === 0);
    assert.equal((await a.guests()).get("busy")?.state, "running");
    await verified(a);
    assert.deepEqual(hosts.problems, []);
  });
});
