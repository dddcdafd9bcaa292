import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { assertSound, chainOf, disksOf, goOn, rows, writeMuch } from "../support/disk-rows.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { makeRaw, MIB } from "../support/images.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest } from "../support/two-hosts.js";

const PORT = 8204;

describe("migrations of a guest that writes its disk", () => {
  let hosts: Hosts;
  let digest: string;
  before(async () => {
    const limits = { memoryMib: 2048, migrationLeaseSeconds: 2 };
    hosts = await Hosts.start(3, { port: 7204, configuration: { limits } });
    const a = hosts.at(0);
    const path = await makeRaw(join(a.stateDirectory, "golden.raw"), { seed: 7, sizeBytes: 32 * MIB });
    digest = (await a.call("image.import", { path, identifier: "golden" })).image.digest;
    await runSample(a, { name: "web", hostPort: PORT, disks: [{ image: "golden", sizeBytes: 256 * MIB }] });
    await rows(a, PORT, "start?tag=1&pause=2000");
  });
  after(() => hosts.stop());

  const imageOf = (host: Host) => statSync(join(host.stateDirectory, "images", digest, "disk.raw"));
  /** Layers a host has, and what it has of other hosts' and did not give back. */
  const layersAt = (host: Host) =>
    ["disks", "borrowed"].flatMap((name) => {
      const directory = join(host.stateDirectory, name);
      return existsSync(directory) ? readdirSync(directory) : [];
    });

  test("take it round a ring, each time with all it committed, and leave nothing behind", async () => {
    let here = hosts.at(0);
    const { ino, mtimeMs } = imageOf(here);
    const { boot_id: bootId } = await ask(here, PORT);
    for (const [index, next] of [hosts.at(1), hosts.at(2), hosts.at(0)].entries()) {
      await goOn(here, PORT, 20);
      const before = await chainOf(here, "web");
      const { committed } = await rows(here, PORT, "status");
      const [migrated] = (
        await here.call("guest.migrate", { name: "web", to: next.name, precopy: index === 1 })
      ).transfers;
      assert.equal(migrated?.state, "running", JSON.stringify(migrated));
      await whenTransfersEnd(here);
      const { transfer } = await here.call("transfer.show", { transfer: migrated.transfer });
      assert.equal(transfer.phase, "complete", transfer.message);
      assert.equal((await ask(next, PORT)).boot_id, bootId, "it is the same machine");
      await assertSound(next, PORT, committed);
      assert.deepEqual((await chainOf(next, "web")).slice(1), before);
      assert.ok((await disksOf(next)).every(({ arriving }) => arriving === undefined));
      assert.equal((await here.guests()).has("web"), false);
      await eventually(`${here.name} keeps no layers`, () => layersAt(here).length === 0);
      here = next;
    }
    const back = imageOf(here);
    assert.deepEqual([back.ino, back.mtimeMs], [ino, mtimeMs], "nothing of the base disk moved");
    await goOn(here, PORT, 10);
    await assertSound(here, PORT);
    assert.deepEqual(hosts.problems, []);
  });

  const messageAt = async (host: Host) => (await host.guests()).get("web")?.message ?? "";
  const stateAt = async (host: Host) => (await host.guests()).get("web")?.state;

  test("are rolled back to memory and disk of the switch, and lose what came after it", async () => {
    const [a, b] = [hosts.at(0), hosts.at(1)];
    await rows(a, PORT, "tag?value=1");
    await a.call("guest.migrate", {
      name: "web",
      to: "b",
      rateLimitBytesPerSecond: 256 * 1024,
      compression: "none",
    });
    await rows(b, PORT, "tag?value=2");
    await goOn(b, PORT, 5);
    assert.equal(await stateAt(a), "migrated");
    assert.equal((await a.call("guest.rollback", { name: "web" })).done, true);
    const { tags } = await assertSound(a, PORT);
    assert.equal(tags[2], 0, "memory and disk are of the switch");
    assert.equal(await stateAt(b), "paused");
    assert.match(await messageAt(b), /rolled back/);
    await goOn(a, PORT, 5);
    await assertSound(a, PORT);
    await removeGuest(b, "web");
    await eventually("b keeps no layers", () => layersAt(b).length === 0);
  });

  /** The parent's host keeps it for the disks alone. */
  async function whenDisksAreAwaited(host: Host): Promise<void> {
    const isAwaiting = async () => {
      const { transfers } = await host.call("transfer.list", { active: true });
      return transfers.some(({ pages, disks }) => pages.received === pages.total && disks !== undefined);
    };
    await eventually("only its disks are awaited", isAwaiting, 60_000);
  }

  test("wait for room at the other host, and keep the parent until the disks are there", async () => {
    const [a, b] = [hosts.at(0), hosts.at(1)];
    const directory = join(b.stateDirectory, "disks");
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=48M,mode=0711", "disks", directory]);
    try {
      await writeMuch(a, "web", "much");
      const { committed } = await rows(a, PORT, "status");
      await a.call("guest.migrate", { name: "web", to: "b" });
      await whenDisksAreAwaited(a);
      await eventually("it says so", async () => /file system/.test(await messageAt(b)), 60_000);
      assert.equal(await stateAt(a), "migrated");
      assert.equal((await a.call("guest.rollback", { name: "web" })).done, true);
      await goOn(a, PORT, 5);
      const { committed: since } = await assertSound(a, PORT, committed);
      await removeGuest(b, "web");
      await eventually("b keeps no layers", () => layersAt(b).length === 0);
      const [again] = (await a.call("guest.migrate", { name: "web", to: "b" })).transfers;
      await whenDisksAreAwaited(a);
      for (const host of [a, b]) {
        await host.end("SIGKILL");
        await host.start();
      }
      await eventually("it is at it again", async () => (await stateAt(a)) === "migrated");
      execFileSync("mount", ["-o", "remount,size=400M", directory]);
      await eventually("it has left", async () => (await stateAt(a)) === undefined, 60_000);
      // That is said once nothing of the guest is here any more.
      await whenTransfersEnd(a);
      const { transfer } = await a.call("transfer.show", { transfer: again?.transfer ?? 0 });
      assert.equal(transfer.phase, "complete", transfer.message);
      assert.equal(await stateAt(b), "running");
      await goOn(b, PORT, 5);
      await assertSound(b, PORT, since);
      await eventually("a keeps no layers", () => layersAt(a).length === 0);
      // Nothing of it is needed any more.
      await a.end("SIGKILL");
      await goOn(b, PORT, 5);
      await a.start();
      await removeGuest(b, "web");
    } finally {
      execFileSync("umount", ["--lazy", directory]);
    }
  });
});
