/**
 * What a guest was told is on its disk is there after a crash, of its emulator or of its host: each row was told of on the console after COMMIT returned.
 *
 * RAMET_CRASHES=N plays N of each in place of one of the emulator alone. A host's power is cut on a file system of its own, on a loop device, that is stopped without a sync.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, SeededRandom, sleep } from "../../src/base/index.js";
import { emulatorsBelow, eventually, Hosts, type Host } from "../support/hosts.js";
import {
  assertHolds,
  assertNoMore,
  rowsIn,
  startWriters,
  tellsMore,
  told,
  viewOf,
  type At,
} from "../support/database-guests.js";
import { importRoot, inGuest, runDiskGuest } from "../support/disk-guest.js";
import { whenTransfersEnd } from "../support/sample-guest.js";
import { LossyDisk } from "../support/power-cut.js";

const ASKED = process.env["RAMET_CRASHES"];
const CRASHES = Number(ASKED ?? 1);
/** A host's power is cut where that was asked for: it takes long, root and a loop device. */
const POWER_CUTS = ASKED === undefined ? 0 : 1;
const SEED = Number(process.env["RAMET_SEED"] ?? 11);
const STATE_MIB = 2048;

/** Runs another guest over what one that is gone wrote, and removes that one. */
async function runAnew(gone: At, name: string): Promise<At> {
  const [disk] = (await viewOf(gone)).disks ?? [];
  const top = disk?.chain[0]?.id;
  assert.ok(top !== undefined);
  const at = { ...gone, name };
  await runDiskGuest(gone.host, { name, hostPort: gone.port, disks: [{ parent: top }] });
  await gone.host.call("guest.remove", { name: gone.name });
  return at;
}

describe("a crash loses nothing that a guest was told is on its disk", () => {
  const roots = { state: mkdtempSync(join(tmpdir(), "rc-")), memory: mkdtempSync("/dev/shm/rc-") };
  const random = new SeededRandom(SEED);
  let lossy: LossyDisk | undefined;
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    if (POWER_CUTS > 0) lossy = new LossyDisk(join(roots.state, "b"), STATE_MIB);
    hosts = await Hosts.start(2, { tls: true, roots, configuration: { limits: { memoryMib: 4096 } } });
    [a, b] = [hosts.at(0), hosts.at(1)];
    await importRoot(a);
  });
  after(async () => {
    await hosts.stop();
    await lossy?.end();
    for (const root of Object.values(roots)) rmSync(root, { recursive: true, force: true });
  });

  const pause = () => sleep(realClock, 200 + random.below(1500));

  test("of its emulator, at any moment", async () => {
    let at: At = { host: a, name: "db0", port: 8080 };
    await runDiskGuest(a, { name: at.name, hostPort: at.port });
    for (let crash = 1; crash <= CRASHES; crash += 1) {
      await startWriters(at);
      await tellsMore(at, 10);
      await pause();
      process.kill((await viewOf(at)).pid ?? 0, "SIGKILL");
      await eventually(`${at.name} is gone`, async () => (await viewOf(at)).pid === undefined);
      const logged = await told(at);
      at = await runAnew(at, `db${crash}`);
      const rows = await rowsIn(at);
      assertHolds(at.name, rows, logged);
      assertNoMore(at.name, rows, logged);
      console.log(
        `    ${rows.wal.size} and ${rows.delete.size} rows, of which ${logged.wal.size} and ${logged.delete.size} since the crash before`,
      );
    }
    await a.call("guest.kill", { name: at.name });
    await a.call("guest.remove", { name: at.name });
  });

  /** The host's power goes: what it had in memory, and had not synced, is lost. */
  async function cutPower(host: Host, disk: LossyDisk): Promise<void> {
    disk.cut();
    await host.end("SIGKILL");
    for (const pid of emulatorsBelow(host.stateDirectory)) process.kill(pid, "SIGKILL");
    await eventually("no emulator runs", () => emulatorsBelow(host.stateDirectory).length === 0);
    for (const name of readdirSync(host.memoryDirectory))
      rmSync(join(host.memoryDirectory, name), { recursive: true, force: true });
    await disk.powerOn();
    mkdirSync(host.memoryDirectory, { recursive: true });
    await host.start();
  }

  for (let round = 0; round < POWER_CUTS; round += 1) {
    test("of its host, after forks to it and on it", async () => {
      assert.ok(lossy !== undefined);
      const far: At = { host: a, name: "far", port: 8080 };
      await runDiskGuest(a, { name: far.name, hostPort: far.port });
      await startWriters(far);
      for (let crash = 1; crash <= CRASHES; crash += 1) {
        await inGuest(a, far.port, "dd if=/dev/urandom of=/root/much bs=1M count=32 conv=fsync 2>&1");
        const before = await told(far);
        await a.call("guest.fork", { name: far.name, names: ["child"], to: [b.url], forwards: ["8090:80"] });
        const child: At = { host: b, name: "child", port: 8090 };
        await whenTransfersEnd(b);
        await b.call("guest.fork", { name: "child", names: ["grandchild"], forwards: ["8091:80"] });
        const grandchild: At = { host: b, name: "grandchild", port: 8091 };
        await Promise.all([tellsMore(child, 10), tellsMore(grandchild, 10)]);
        await whenTransfersEnd(b);
        // What this one stands on may be on its way when the power goes.
        await inGuest(a, far.port, "dd if=/dev/urandom of=/root/more bs=1M count=64 conv=fsync 2>&1");
        await a.call("guest.fork", { name: far.name, names: ["late"], to: [b.url], forwards: ["8092:80"] });
        const late: At = { host: b, name: "late", port: 8092 };
        await tellsMore(late, 2);
        const logged = [await told(child), await told(grandchild), await told(late)];
        const underWay = (await b.call("disk.list", {})).disks.filter(
          ({ arriving }) => arriving !== undefined,
        );
        await cutPower(b, lossy);
        for (const [index, at] of [child, grandchild, late].entries()) {
          const anew = await runAnew(at, `anew${index}`);
          const rows = await rowsIn(anew);
          assertHolds(anew.name, rows, before);
          assertHolds(anew.name, rows, logged[index] ?? before);
          await inGuest(b, anew.port, "sha256sum /root/much >/dev/null");
          await b.call("guest.kill", { name: anew.name });
          await b.call("guest.remove", { name: anew.name });
        }
        console.log(
          `    ${underWay.length} layers were on their way; ${before.wal.size} rows before the fork, ${logged.map(({ wal }) => wal.size).join(", ")} after it`,
        );
      }
    });
  }
});
