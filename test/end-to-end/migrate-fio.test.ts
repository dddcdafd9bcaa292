/**
 * A guest that verifies what it writes, with fio, and commits rows to databases, goes round a ring of hosts with local disks: through the end of an agent, and of a whole host.
 *
 * RAMET_RINGS=N goes round three hosts N times, in place of to another host and back.
 */
import assert from "node:assert/strict";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  assertHolds,
  assertNoMore,
  rowsIn,
  rowsOnDisk,
  startWriters,
  stopWriters,
  switchOff,
  tellsMore,
  told,
  type At,
} from "../support/database-guests.js";
import { importRoot, inGuest, runDiskGuest } from "../support/disk-guest.js";
import { fioGoesOn, startFio, stopFio } from "../support/fio.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";

const ASKED = process.env["RAMET_RINGS"];
const RINGS = Number(ASKED ?? 1);
const HOSTS = ASKED === undefined ? 2 : 3;
const NAME = "db";
const PORT = 8080;
/** So slow that the agent is killed while much is still to come. */
const SLOW = 16 * 1024 * 1024;
const KEPT_MIB = 8;
const FIO_MIB = ASKED === undefined ? 2 : 8;

describe("a guest that verifies what it writes goes round a ring", () => {
  let hosts: Hosts;
  let kept: string;
  before(async () => {
    const limits = { memoryMib: 2048, migrationLeaseSeconds: 60 };
    hosts = await Hosts.start(HOSTS, { tls: true, configuration: { limits } });
    await importRoot(hosts.at(0));
    await runDiskGuest(hosts.at(0), { name: NAME, hostPort: PORT });
    const write = `dd if=/dev/urandom of=/root/kept bs=1M count=${KEPT_MIB} conv=fsync 2>/dev/null; sha256sum /root/kept`;
    kept = await inGuest(hosts.at(0), PORT, write);
  });
  after(() => hosts.stop());

  const at = (host: Host): At => ({ host, name: NAME, port: PORT });

  /** Waits until all of the guest is at its new host. */
  async function whenComplete(from: Host, transfer: number): Promise<void> {
    const phase = async () => (await from.call("transfer.show", { transfer })).transfer.phase;
    await eventually("it is complete", async () => (await phase()) === "complete", 120_000);
    await eventually("its parent is gone", async () => !(await from.guests()).has(NAME));
  }

  /** Migrates the guest; the agent of the host it leaves may be killed as soon as it runs there. @returns where it is. */
  async function migrate(from: Host, to: Host, { killed }: { killed: boolean }): Promise<Host> {
    const slow = killed ? { rateLimitBytesPerSecond: SLOW, compression: "none" as const } : {};
    const [migrated] = (await from.call("guest.migrate", { name: NAME, to: to.name, ...slow })).transfers;
    assert.equal(migrated?.state, "running", JSON.stringify(migrated));
    if (killed) {
      await from.end("SIGKILL");
      const { state } = (await to.guests()).get(NAME) ?? {};
      assert.equal(state, "receiving", "it lacks what its parent's host has");
      await from.start();
    }
    await whenComplete(from, migrated.transfer);
    await tellsMore(at(to), 5);
    return to;
  }

  /** The host is lost, and the way to it: nothing of it is there any more. */
  async function lose(host: Host): Promise<void> {
    await host.end("SIGKILL");
    rmSync(host.stateDirectory, { recursive: true, force: true });
    for (const name of readdirSync(host.memoryDirectory))
      rmSync(join(host.memoryDirectory, name), { recursive: true, force: true });
  }

  async function assertWhole(place: At): Promise<void> {
    assert.equal(
      await inGuest(place.host, place.port, "echo 3 >/proc/sys/vm/drop_caches; sha256sum /root/kept"),
      kept,
    );
  }

  test("though an agent is killed on the way, and a host is lost when it has left that", async () => {
    let here = hosts.at(0);
    await startWriters(at(here), 2000);
    await startFio(at(here), FIO_MIB);
    for (let ring = 0; ring < RINGS; ring += 1) {
      const logged: Awaited<ReturnType<typeof told>>[] = [];
      for (const [index, next] of [...hosts.all.slice(1), hosts.at(0)].entries()) {
        const left = here;
        logged.push(await told(at(left)));
        here = await migrate(left, next, { killed: index === 0 });
        await assertWhole(at(here));
        if (index === HOSTS - 1 && ring === RINGS - 1) await lose(left);
      }
      await tellsMore(at(here), 10);
      await fioGoesOn(at(here));
      const rows = await rowsIn(at(here));
      for (const each of logged) assertHolds(NAME, rows, each);
      console.log(`    ring ${ring + 1}: ${rows.wal.size} and ${rows.delete.size} rows`);
    }
    await stopFio(at(here));
    await stopWriters(at(here));
    await assertWhole(at(here));
    const [rows, logged] = [await rowsIn(at(here)), await told(at(here))];
    assertHolds(NAME, rows, logged);
    assertNoMore(NAME, rows, logged);
    await switchOff(at(here));
    assert.deepEqual(await rowsOnDisk(at(here), "clean"), rows);
  });
});
