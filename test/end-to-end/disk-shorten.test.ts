import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rmSync, statfsSync, truncateSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { codeOf, realClock, silentLog } from "../../src/base/index.js";
import { RpcClient } from "../../src/control/index.js";
import { dial } from "../../src/lane/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, sampleGuest } from "../support/sample-guest.js";

const MIB = 1024 * 1024;
const DISKS_BYTES = 400 * MIB;
/** So that it takes longer than a test needs for what it does meanwhile. */
const SLOW_BPS = 256 * 1024;
const METHODS = ["disk.flatten", "disk.commit"] as const;

describe("chains of a guest that writes its disk", () => {
  let hosts: Hosts;
  let a: Host;
  let directory: string;
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { limits: { memoryMib: 4096 } } });
    a = hosts.at(0);
    directory = join(a.stateDirectory, "disks");
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISKS_BYTES},mode=0711`, "disks", directory]);
    const golden = join(a.stateDirectory, "golden.raw");
    writeFileSync(golden, Buffer.alloc(4 * MIB, 7));
    await a.call("image.import", { path: golden, identifier: "golden" });
    await runSample(a, { name: "web", hostPort: 8080, disks: [{ image: "golden", sizeBytes: 128 * MIB }] });
    await ask(a, 8080, "/disk/start?tag=1&pause=2000");
    await goOn();
  });
  after(async () => {
    await a.clear();
    execFileSync("umount", [directory]);
    await hosts.stop();
  });

  const committed = async (port: number): Promise<number> =>
    (await ask<{ committed: number }>(a, port, "/disk/status")).committed;
  const chainOf = async (name: string): Promise<string[]> =>
    ((await a.call("guest.show", { name })).guest.disks?.[0]?.chain ?? []).map(({ id }) => id);

  async function goOn(port = 8080): Promise<void> {
    const before = await committed(port);
    await eventually("rows are committed", async () => (await committed(port)) >= before + 10, 60_000);
  }

  /** Nothing of the disk is wrong, and nothing is left under way. */
  async function verify(port = 8080): Promise<void> {
    await goOn(port);
    const said = await ask<{ wrong: number; after: number }>(a, port, "/disk/verify");
    assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
  }

  /** Chains get longer by forks, whose children do not stay. */
  async function grow(times: number): Promise<void> {
    for (let count = 0; count < times; count += 1) {
      await a.call("guest.fork", { name: "web", names: ["gone"] });
      await a.call("guest.kill", { name: "gone" });
      await a.call("guest.remove", { name: "gone" });
      await goOn();
    }
  }

  test("are merged as far down as nobody else stands on them, and only so far", async () => {
    await grow(2);
    assert.equal((await chainOf("web")).length, 4);
    const [done] = (await a.call("disk.commit", { guest: "web" })).disks;
    assert.equal(done?.layersBefore, 4);
    assert.equal(done?.chain.length, 2);
    assert.ok((done?.pauseUs ?? 0) > 0);
    await verify();
    await a.call("guest.fork", { name: "web", names: ["child"], forwards: ["8090:80"] });
    const child = await chainOf("child");
    await eventually(
      "the fork is over",
      async () => (await a.call("guest.show", { name: "web" })).guest.transfers.length === 0,
    );
    await assert.rejects(a.call("disk.commit", { guest: "web", disk: "disk0" }), {
      code: "in-use",
      message: /2 disks stand on/,
    });
    const [refused] = (await a.call("disk.commit", { guest: "web" })).disks;
    assert.match(refused?.message ?? "", /2 disks stand on/);
    await a.call("disk.flatten", { guest: "web" });
    assert.equal((await chainOf("web")).length, 2);
    assert.deepEqual(await chainOf("child"), child);
    await Promise.all([verify(8080), verify(8090)]);
    const [alone] = (await a.call("disk.flatten", { guest: "child", alone: true })).disks;
    assert.equal(alone?.chain.length, 1);
    await verify(8090);
    await a.call("guest.kill", { name: "child" });
    await a.call("guest.remove", { name: "child" });
    const left = (await a.call("disk.list", {})).disks;
    assert.deepEqual(
      left.map(({ guest }) => guest),
      ["web"],
      "what nobody needs any more is gone",
    );
  });

  test("are what they were when it is given up, and nothing else is done meanwhile", async () => {
    await grow(1);
    for (const method of METHODS) {
      const before = await chainOf("web");
      const given = a.call(method, { guest: "web", rateBps: SLOW_BPS });
      given.catch(() => {});
      await eventually("it is under way", async () => {
        const busy = await a.call("guest.fork", { name: "web" }).then(
          () => false,
          (error: unknown) => (error as { code?: string }).code === "busy",
        );
        return busy;
      });
      await assert.rejects(a.call("guest.exchange", { name: "web" }), { code: "busy" });
      await a.end("SIGKILL");
      await assert.rejects(given);
      await a.start();
      await eventually("it is settled", async () => (await a.guests()).get("web")?.state === "running");
      await verify();
      assert.equal((await chainOf("web")).length, before.length);
      await grow(1);
    }
  });

  /** The file system is filled to its last byte while chains are shortened: that is given up, and the guest stands still and goes on. */
  async function fillDuring(method: "disk.flatten" | "disk.commit", ballast: string): Promise<void> {
    const before = await chainOf("web");
    const given = a.call(method, { guest: "web", disk: "disk0", rateBps: SLOW_BPS });
    given.catch(() => {});
    await eventually("it is under way", async () =>
      a.call("guest.exchange", { name: "web" }).then(
        () => false,
        (error: unknown) => codeOf(error) === "busy",
      ),
    );
    assert.throws(() => writeFileSync(ballast, Buffer.alloc(DISKS_BYTES)), { code: "ENOSPC" });
    await assert.rejects(given, { code: "no-room", message: /is full: .* make room there, and try again/ });
    rmSync(ballast);
    await eventually("it runs", async () => (await a.guests()).get("web")?.state === "running");
    await verify();
    assert.equal((await chainOf("web")).length, before.length);
  }

  test("are not shortened where there is no room, or no such disk, or no guest that runs", async () => {
    const ballast = join(directory, "ballast");
    await grow(1);
    const { bavail, bsize } = statfsSync(directory);
    writeFileSync(ballast, Buffer.alloc(bavail * bsize - 60 * MIB));
    const before = await chainOf("web");
    await assert.rejects(a.call("disk.flatten", { guest: "web" }), { code: "no-room", message: /to spare/ });
    rmSync(ballast);
    assert.deepEqual(await chainOf("web"), before);
    for (const method of process.env.RAMET_KILLS === "all" ? METHODS : METHODS.slice(1))
      await fillDuring(method, ballast);
    await assert.rejects(a.call("disk.flatten", { guest: "web", disk: "disk3" }), { code: "no-such-disk" });
    await assert.rejects(a.call("disk.flatten", { guest: "nobody" }), { code: "no-such-guest" });
    await verify();
  });

  /** Larger than is copied before anybody can come between. */
  const DENSE_BYTES = 128 * MIB;
  const whole = { name: "whole", ...sampleGuest(), disks: [{ image: "dense", differencing: false }] };

  /** Begins to run the guest on a connection of its own. */
  async function beginWhole(): Promise<{ copying: Promise<void>; outcome: Promise<string>; leave(): void }> {
    const hello = { purpose: "control", role: "client" } as const;
    const channel = await dial({ url: `unix:${a.socket}`, hello, clock: realClock, deadlineMs: 5000 });
    const client = new RpcClient(channel, { clock: realClock, log: silentLog });
    const copying = new Promise<void>((resolve) => {
      client.onEvent(({ event, data }) => {
        if (event === "disk" && data.work === 7 && data.disk === "disk0") resolve();
      });
    });
    const outcome = client.call("guest.run", { ...whole, work: 7 }, { deadlineMs: 60_000 }).then(
      () => "runs",
      (error: unknown) => codeOf(error),
    );
    return { copying, outcome, leave: () => client.close() };
  }

  /** Nothing is left of a guest that did not come to run. */
  async function requireNothingLeft(): Promise<void> {
    await eventually("nothing is left of it", async () => {
      const { disks } = await a.call("disk.list", {});
      return (
        !(await a.guests()).has("whole") && disks.every(({ guest, frozen }) => frozen || guest === "web")
      );
    });
    const { images } = await a.call("image.list", {});
    assert.equal(images.find(({ identifier }) => identifier === "dense")?.isUsed, false);
  }

  test("are not begun by a disk that is copied whole, and nothing is left where that is given up", async () => {
    const dense = join(a.stateDirectory, "dense.raw");
    writeFileSync(dense, randomBytes(DENSE_BYTES));
    truncateSync(dense, 8 * DENSE_BYTES);
    await a.call("image.import", { path: dense, identifier: "dense" });
    rmSync(dense);
    const { bavail, bsize } = statfsSync(directory);
    const ballast = join(directory, "ballast");
    writeFileSync(ballast, Buffer.alloc(bavail * bsize - 100 * MIB));
    await assert.rejects(a.call("guest.run", whole), {
      code: "no-room",
      message:
        /disk0 of guest whole: .* to spare; make room .*; the guest is not run, and nothing is left of it/,
    });
    rmSync(ballast);
    await requireNothingLeft();
    const left = await beginWhole();
    await left.copying;
    left.leave();
    assert.equal(await left.outcome, "closed");
    await requireNothingLeft();
    const killed = await beginWhole();
    await killed.copying;
    await assert.rejects(a.call("guest.remove", { name: "whole" }), { code: /busy|bad-state/ });
    await a.call("guest.kill", { name: "whole" });
    assert.equal(await killed.outcome, "chain-failed");
    await requireNothingLeft();
    const lost = await beginWhole();
    await lost.copying;
    await a.end("SIGKILL");
    assert.equal(await lost.outcome, "closed");
    await a.start();
    await requireNothingLeft();
    await verify();
  });

  test("begin with a disk that was copied whole, which stands on nothing", async () => {
    const { digest } = (await a.call("image.show", { reference: "dense" })).image;
    await runSample(a, { ...whole, hostPort: 8081 });
    const [own] = (await a.call("guest.show", { name: "whole" })).guest.disks ?? [];
    assert.deepEqual(
      own?.chain.map(({ kind }) => kind),
      ["disk"],
    );
    const id = own?.chain[0]?.id ?? "";
    const file = join(directory, id, "disk.qcow2");
    await a.call("guest.fork", { name: "whole", names: ["child"], forwards: ["8090:80"] });
    assert.deepEqual((await chainOf("child")).slice(1), [id], "the child's is a differencing one over it");
    const { usedBytes = Infinity } =
      (await a.call("disk.list", {})).disks.find((disk) => disk.id === id) ?? {};
    assert.ok(usedBytes < DENSE_BYTES + 8 * MIB, `holes take no room: ${usedBytes} bytes are used`);
    // Nobody has written it: it is the image, byte for byte.
    const image = join(a.stateDirectory, "images", digest, "disk.raw");
    execFileSync("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", "-U", file, image]);
    await a.call("image.remove", { reference: "dense" });
    const { images } = await a.call("image.prune", { unusedForMs: 0 });
    assert.ok(images.some((image) => image.digest === digest));
    await ask(a, 8090, "/disk/start?tag=2&pause=2000");
    await verify(8090);
    for (const name of ["child", "whole"]) await a.call("guest.kill", { name });
    await a.call("guest.remove", { name: "child" });
    // A layer of an ended guest is copied as an image is, and stays that guest's.
    const [top = ""] = await chainOf("whole");
    await a.call("guest.run", { ...whole, name: "copy", disks: [{ parent: top, differencing: false }] });
    assert.equal((await chainOf("copy")).length, 1);
    assert.deepEqual((await chainOf("whole"))[0], top);
    await a.call("guest.kill", { name: "copy" });
    for (const name of ["copy", "whole"]) await a.call("guest.remove", { name });
    const { disks } = await a.call("disk.list", {});
    assert.ok(
      disks.every(({ guest, frozen }) => frozen || guest === "web"),
      "nothing is left of what was copied",
    );
  });
});
