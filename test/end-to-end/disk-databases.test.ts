/**
 * Forks of an operating system that commits rows to databases and has fio verify what it writes. Each side must have what was committed at the fork's instant, at most one row
 * more that was in flight, and then only its own.
 *
 * RAMET_FORKS=N plays N forks in place of the few that suffice for every change; their kinds take turns.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Hosts, type Host } from "../support/hosts.js";
import {
  assertHolds,
  assertNoMore,
  assertParted,
  rowsIn,
  rowsOnDisk,
  startWriters,
  stopWriters,
  switchOff,
  tellsMore,
  told,
  type At,
} from "../support/database-guests.js";
import { importRoot, runDiskGuest } from "../support/disk-guest.js";
import { startFio, stopFio } from "../support/fio.js";
import { whenTransfersEnd } from "../support/sample-guest.js";

const FORKS = Number(process.env["RAMET_FORKS"] ?? 2);
const KINDS = ["far", "shared", "far", "copied"] as const;
type Kind = (typeof KINDS)[number];

describe("forks of a guest with databases", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  let parent: At;
  before(async () => {
    hosts = await Hosts.start(2, { tls: true, configuration: { limits: { memoryMib: 4096 } } });
    [a, b] = [hosts.at(0), hosts.at(1)];
    await importRoot(a);
    parent = { host: a, name: "db", port: 8080 };
    await runDiskGuest(a, { name: parent.name, hostPort: parent.port });
    await startWriters(parent);
  });
  after(() => hosts.stop());

  async function fork(kind: Kind, name: string): Promise<At> {
    const where = kind === "far" ? { to: [b.url] } : { memory: kind };
    const [forked] = (
      await a.call("guest.fork", { name: parent.name, names: [name], forwards: ["8090:80"], ...where })
    ).transfers;
    assert.equal(forked?.state, "running", JSON.stringify(forked));
    return { host: kind === "far" ? b : a, name, port: 8090 };
  }

  async function forkAndJudge(kind: Kind, name: string): Promise<void> {
    await startFio(parent);
    await tellsMore(parent, 5);
    const before = await told(parent);
    const child = await fork(kind, name);
    await Promise.all([tellsMore(child, 10), tellsMore(parent, 10)]);
    await Promise.all([stopFio(parent), stopFio(child)]);
    await stopWriters(child);
    const childTold = await told(child);
    const childRows = await rowsIn(child);
    assertHolds(child.name, childRows, before);
    assertHolds(child.name, childRows, childTold);
    assertNoMore(child.name, childRows, childTold);
    const parentTold = await told(parent);
    const parentRows = await rowsIn(parent);
    assertHolds(parent.name, parentRows, parentTold);
    assertParted({ parent: parentRows, child: childRows, childTold, before });
    await switchOff(child);
    assert.deepEqual(await rowsOnDisk(child, "clean"), childRows);
    await whenTransfersEnd(a);
    await child.host.call("guest.remove", { name: child.name });
    console.log(`    ${kind}: ${childRows.wal.size} and ${childRows.delete.size} rows in the child`);
  }

  for (let round = 0; round < FORKS; round += 1) {
    const kind = KINDS[round % KINDS.length] ?? "far";
    test(`leave each side with what was committed at the instant, and then its own: ${round + 1}, ${kind}`, async () => {
      await forkAndJudge(kind, `child${round}`);
    });
  }

  test("leave the parent's disk clean", async () => {
    await stopWriters(parent);
    const [rows, logged] = [await rowsIn(parent), await told(parent)];
    assertHolds(parent.name, rows, logged);
    assertNoMore(parent.name, rows, logged);
    await switchOff(parent);
    assert.deepEqual(await rowsOnDisk(parent, "clean"), rows);
    assert.deepEqual(hosts.problems, []);
  });
});
