/**
 * A guest with several disks of different kinds: on a base disk and on nothing, through the host's page cache and past it, with limits, with blocks that the guest gave back. It is
 * forked on its own host, and from a newer emulator to another host, and migrated there.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { makeRaw, MIB } from "../support/images.js";
import { importRoot, inGuest, ROOT_IMAGE, runDiskGuest } from "../support/disk-guest.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest } from "../support/two-hosts.js";
import { whenArrived } from "../support/disk-rows.js";

const PORT = 8080;
const CHILD_PORT = 8090;
const SIZE = 24 * MIB;
const BASE = 16 * MIB;
const IOPS = 500;
const REQUESTS = 500;
const BPS = 64 * MIB;
/** What a guest asks of its limited disk takes so long, whatever the machine: less a burst, which is a tenth of a second's worth. */
const LEAST_MS = ((REQUESTS - IOPS / 5) / IOPS) * 1000;

/** `/dev/vda` is the root. */
const DISKS = [
  { image: ROOT_IMAGE },
  { sizeBytes: SIZE, cache: "none" as const },
  { sizeBytes: SIZE, iops: IOPS },
  { image: "golden", sizeBytes: SIZE, cache: "none" as const, bps: BPS },
];
const WRITTEN = ["vdb", "vdc", "vdd"] as const;

const skip = missingNextEmulator();
describe("a guest with several disks", { skip }, () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    const configuration = { emulators: [nextEmulator()], limits: { memoryMib: 4096 } };
    hosts = await Hosts.start(2, { tls: true, configuration });
    [a, b] = [hosts.at(0), hosts.at(1)];
    await importRoot(a);
    const path = await makeRaw(join(a.stateDirectory, "golden.raw"), { seed: 7, sizeBytes: BASE });
    await a.call("image.import", { path, identifier: "golden" });
    await runDiskGuest(a, { name: "many", hostPort: PORT, disks: DISKS });
  });
  after(() => hosts.stop());

  /** Has the guest write something new to each disk, a different part with each mark. */
  async function write(host: Host, port: number, mark: number): Promise<void> {
    const writes = WRITTEN.map(
      (disk) =>
        `dd if=/dev/urandom of=/dev/${disk} bs=256k seek=$((${mark} * 8)) count=4 oflag=direct conv=fsync 2>/dev/null`,
    );
    await inGuest(host, port, writes.join(" && "));
  }

  /** What each disk holds, read past the guest's cache. */
  const digests = (host: Host, port: number): Promise<string> =>
    inGuest(
      host,
      port,
      WRITTEN.map((disk) => `dd if=/dev/${disk} bs=1M iflag=direct 2>/dev/null | sha256sum`).join("; "),
    );

  const layersOf = async (host: Host, name: string) => {
    const { disks = [] } = (await host.call("guest.show", { name })).guest;
    return disks.map((disk) => ({ ...disk, chain: disk.chain.map(({ id }) => id) }));
  };

  const usedBytes = async (host: Host, id = ""): Promise<number> => {
    const { disks } = await host.call("disk.list", {});
    return disks.find((disk) => disk.id === id)?.usedBytes ?? 0;
  };

  /** How long the guest needs for requests to its limited disk, by its own clock. */
  async function limitedMs(host: Host, port: number): Promise<number> {
    const dd = `dd if=/dev/zero of=/dev/vdc bs=4k seek=5120 count=${REQUESTS} oflag=direct 2>/dev/null`;
    const said = await inGuest(
      host,
      port,
      `from=$(date +%s%N); ${dd}; echo $(( ($(date +%s%N) - from) / 1000000 ))`,
    );
    return Number(said.trim());
  }

  test("has each of them as it was asked for", async () => {
    const disks = await layersOf(a, "many");
    assert.deepEqual(
      disks.map(({ name, sizeBytes, cache, iops, bps }) => ({ name, sizeBytes, cache, iops, bps })).slice(1),
      [
        { name: "disk1", sizeBytes: SIZE, cache: "none", iops: undefined, bps: undefined },
        { name: "disk2", sizeBytes: SIZE, cache: "writeback", iops: IOPS, bps: undefined },
        { name: "disk3", sizeBytes: SIZE, cache: "none", iops: undefined, bps: BPS },
      ],
    );
    const said = await inGuest(
      a,
      PORT,
      "cat /sys/block/vd?/serial; blockdev --getsize64 /dev/vdb /dev/vdc /dev/vdd",
    );
    assert.match(said, /disk0\s*disk1\s*disk2\s*disk3/);
    assert.equal(said.split(String(SIZE)).length - 1, WRITTEN.length);
    assert.ok((await limitedMs(a, PORT)) >= LEAST_MS, "its limit holds");
  });

  test("gives the host its room back for what it discards", async () => {
    for (const [index, disk] of [
      [1, "vdb"],
      [3, "vdd"],
    ] as const) {
      const top = (await layersOf(a, "many"))[index]?.chain[0];
      const before = await usedBytes(a, top);
      await inGuest(
        a,
        PORT,
        `dd if=/dev/urandom of=/dev/${disk} bs=1M seek=12 count=8 oflag=direct 2>/dev/null`,
      );
      const written = await usedBytes(a, top);
      assert.ok(written >= before + 8 * MIB, `${disk}: ${written} bytes are used`);
      await inGuest(a, PORT, `blkdiscard -o $((12 << 20)) -l $((8 << 20)) /dev/${disk}`);
      await eventually(`${disk} takes less`, async () => (await usedBytes(a, top)) <= before + MIB);
    }
    // A whole disk over a base disk that was discarded reads as nothing, and not as the base disk.
    const said = await inGuest(
      a,
      PORT,
      `blkdiscard -o 0 -l ${BASE} /dev/vdd; head -c ${BASE} /dev/vdd | tr -d '\\0' | wc -c`,
    );
    assert.equal(said.trim(), "0");
    await write(a, PORT, 0);
  });

  /** Both have all disks of the instant, and then only their own writes. */
  async function forkAndCompare(name: string, where: object, host: Host): Promise<void> {
    await write(a, PORT, 1);
    const before = await digests(a, PORT);
    await a.call("guest.fork", { name: "many", names: [name], forwards: [`${CHILD_PORT}:80`], ...where });
    assert.equal(await digests(host, CHILD_PORT), before, "the child has what the parent had");
    assert.ok((await limitedMs(host, CHILD_PORT)) >= LEAST_MS, "its limit is the child's, too");
    await Promise.all([write(a, PORT, 2), write(host, CHILD_PORT, 2)]);
    const [parent, child] = [await digests(a, PORT), await digests(host, CHILD_PORT)];
    for (const [index, line] of parent.trim().split("\n").entries())
      assert.notEqual(line, child.trim().split("\n")[index], `${WRITTEN[index]} is two disks`);
    const [mine, its] = [await layersOf(a, "many"), await layersOf(host, name)];
    for (const [index, disk] of mine.entries()) {
      const { chain, ...rest } = disk;
      assert.deepEqual(
        { ...its[index], chain: its[index]?.chain.slice(1) },
        { ...rest, chain: chain.slice(1) },
      );
      assert.notEqual(its[index]?.chain[0], chain[0]);
    }
    await whenTransfersEnd(a);
    await whenArrived(host);
    assert.equal(await digests(host, CHILD_PORT), child, "it is the same when all is here");
    await removeGuest(host, name);
  }

  async function migrate(from: Host, to: Host): Promise<void> {
    const before = await digests(from, PORT);
    await from.call("guest.migrate", { name: "many", to: to.name });
    assert.equal(await digests(to, PORT), before, "it has all its disks");
    await write(to, PORT, 3);
    const since = await digests(to, PORT);
    await whenTransfersEnd(from);
    assert.equal(await digests(to, PORT), since);
    assert.ok((await limitedMs(to, PORT)) >= LEAST_MS, "its limit goes with it");
  }

  // A whole run has the way to another host, below, which does the same and more.
  if (process.env["RAMET_KINDS"] === "all")
    test("is forked on its own host with all of them", async () => {
      await forkAndCompare("near", { memory: "shared" }, a);
      assert.deepEqual(hosts.problems, []);
    });

  /** The guest goes on in the newer emulator, with its limits and all that its disks hold. */
  async function exchange(host: Host): Promise<void> {
    const before = await digests(host, PORT);
    const { to } = await host.call("guest.exchange", { name: "many", emulator: "10.0" });
    assert.match(to.version, /^10\./);
    assert.equal(await digests(host, PORT), before);
    assert.ok((await limitedMs(host, PORT)) >= LEAST_MS, "the other emulator keeps to the limit");
  }

  test("is forked to another host and migrated there with all of them, from a newer emulator", async () => {
    await exchange(a);
    await forkAndCompare("far", { to: [b.url] }, b);
    await migrate(a, b);
    assert.deepEqual(hosts.problems, []);
  });
});
