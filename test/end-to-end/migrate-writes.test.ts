/**
 * A migrated guest writes where both hosts can read it until all of it is on its new host. When that is lost before, what the guest was told is on its disk is there; when it is not, it
 * writes to the new host's own disks in the end, and nothing is left where the hosts share it.
 */
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  assertHolds,
  assertNoMore,
  rowsIn,
  startWriters,
  stopWriters,
  tellsMore,
  told,
  viewOf,
  type At,
} from "../support/database-guests.js";
import { importRoot, loggedRows, runDiskGuest } from "../support/disk-guest.js";
import { chainOf, disksOf } from "../support/disk-rows.js";
import { emulatorsBelow, eventually, Hosts, type Host } from "../support/hosts.js";
import { MIB } from "../support/images.js";

const PORT = 8080;
/** So slow that its hosts can be lost before it is complete. */
const SLOW = { rateLimitBytesPerSecond: MIB, compression: "none" as const };

describe("a guest that writes where its hosts share it while it is migrated", () => {
  let hosts: Hosts;
  let shared: string;
  const at = (host: Host, name = "db"): At => ({ host, name, port: PORT });
  const lying = () => readdirSync(shared).filter((name) => !name.startsWith("."));

  before(async () => {
    shared = mkdtempSync(join(tmpdir(), "rw-"));
    chmodSync(shared, 0o755);
    const limits = { memoryMib: 2048, migrationLeaseSeconds: 2 };
    hosts = await Hosts.start(2, { tls: true, configuration: { limits, sharedDirectories: [shared] } });
    await importRoot(hosts.at(0));
    await runDiskGuest(hosts.at(0), { name: "db", hostPort: PORT });
  });
  after(async () => {
    await hosts.stop();
    rmSync(shared, { recursive: true, force: true });
  });

  const migrate = async (from: Host, to: Host, more: object = {}): Promise<void> => {
    const [migrated] = (
      await from.call("guest.migrate", { name: "db", to: to.name, writes: shared, ...more })
    ).transfers;
    assert.equal(migrated?.state, "running", JSON.stringify(migrated));
  };
  const isHome = async (host: Host) =>
    (await disksOf(host)).every(({ sharedAt }) => sharedAt === undefined) && lying().length === 0;

  test("is refused a directory that is not the same on both hosts, or that nobody named, and runs on", async () => {
    const [a, b] = [hosts.at(0), hosts.at(1)];
    const chain = await chainOf(a, "db");
    const elsewhere = { name: "db", to: "b", writes: tmpdir() };
    await assert.rejects(a.call("guest.migrate", elsewhere), {
      code: "not-shared",
      message: /sharedDirectories/,
    });
    chmodSync(shared, 0o700);
    await assert.rejects(migrate(a, b), { code: "prepare-failed", message: /chmod o\+x/ });
    chmodSync(shared, 0o755);
    rmSync(shared, { recursive: true });
    await assert.rejects(migrate(a, b), { code: "not-shared" });
    mkdirSync(shared, { mode: 0o755 });
    const nothing = { guest: "db", directory: shared };
    await assert.rejects(a.call("disk.adopt", nothing), { code: "no-such-disk", message: /disk0/ });
    assert.deepEqual(await chainOf(a, "db"), chain);
    assert.equal((await viewOf(at(a))).state, "running");
    assert.deepEqual(await disksOf(b), []);
  });

  test("writes there until all of it is here, and then to this host's own disks", async () => {
    const [a, b] = [hosts.at(0), hosts.at(1)];
    await startWriters(at(a), 2000);
    await tellsMore(at(a), 5);
    const before = await told(at(a));
    await migrate(a, b, { ...SLOW, rateLimitBytesPerSecond: 16 * MIB });
    const [top] = await chainOf(b, "db");
    assert.deepEqual(lying(), [top?.id]);
    await tellsMore(at(b), 5);
    assert.ok(statSync(join(shared, top?.id ?? "", "disk.qcow2")).size > 256 * 1024, "it writes there");
    const own = join(b.stateDirectory, "disks", top?.id ?? "", "disk.qcow2");
    assert.ok(!existsSync(own), "and not here");
    // Nobody takes what is written still.
    await assert.rejects(a.call("disk.adopt", { guest: "db", directory: shared }), { code: "in-use" });
    await b.end("SIGKILL");
    await b.start();
    await eventually("it is here", async () => (await viewOf(at(b))).state === "running", 120_000);
    await eventually("it writes here", async () => (await chainOf(b, "db"))[1]?.id === top?.id, 60_000);
    await b.end("SIGKILL");
    await b.start();
    await eventually("nothing is left there", () => isHome(b), 60_000);
    assert.equal(statSync(own).mode & 0o777, 0o444);
    const open = readFileSync(`/proc/${(await viewOf(at(b))).pid}/maps`, "utf8");
    assert.ok(!open.includes(shared));
    await tellsMore(at(b), 5);
    const logged = await told(at(b));
    const rows = await rowsIn(at(b));
    for (const each of [before, logged]) assertHolds("db", rows, each);
    await eventually("its parent is gone", async () => !(await a.guests()).has("db"));
  });

  test("has lost nothing it was told is on its disk when its new host is lost before that", async () => {
    const [a, b] = [hosts.at(1), hosts.at(0)];
    await migrate(a, b, SLOW);
    await tellsMore(at(b), 20);
    await b.end("SIGKILL");
    const logged = await toldBy(b);
    assert.equal((await viewOf(at(a))).state, "migrated");
    await assert.rejects(a.call("disk.adopt", { guest: "db", directory: shared }), { code: "in-use" });
    await lose(b);
    const { disks } = await a.call("disk.adopt", { guest: "db", directory: shared });
    assert.deepEqual(await a.call("disk.adopt", { guest: "db", directory: shared }), { disks }, "once");
    assert.deepEqual(
      disks.map(({ name, id }) => [name, id]),
      [["disk0", lying()[0]]],
    );
    // It is kept for as long as the guest that wrote it, whatever becomes of others.
    const missing = { kernel: "/nowhere", name: "none", disks: disks.map(({ id }) => ({ parent: id })) };
    await assert.rejects(a.call("guest.run", missing), { code: "bad-boot-file" });
    await a.end("SIGKILL");
    await a.start();
    assert.deepEqual(await a.call("disk.adopt", { guest: "db", directory: shared }), { disks }, "it is here");
    const name = "anew";
    await runDiskGuest(a, { name, hostPort: PORT, disks: disks.map(({ id }) => ({ parent: id })) });
    const rows = await rowsIn(at(a, name));
    assertHolds(name, rows, logged);
    assertNoMore(name, rows, logged);
    await startWriters(at(a, name));
    await tellsMore(at(a, name), 5);
    await stopWriters(at(a, name));
    await lose(a);
  });

  /** Nothing of the host is there any more. */
  async function lose(host: Host): Promise<void> {
    await host.end("SIGKILL");
    for (const pid of emulatorsBelow(host.stateDirectory)) process.kill(pid, "SIGKILL");
    await eventually("its emulators are gone", () => emulatorsBelow(host.stateDirectory).length === 0);
    for (const directory of [host.stateDirectory, host.memoryDirectory])
      for (const name of readdirSync(directory))
        rmSync(join(directory, name), { recursive: true, force: true });
  }

  /** What a guest has told on the console of a host whose agent is gone. */
  async function toldBy(host: Host) {
    const [id] = readdirSync(join(host.stateDirectory, "guests"));
    const guest = { id: id ?? "" };
    return { wal: loggedRows(host, guest, "wal"), delete: loggedRows(host, guest, "delete") };
  }
});
