import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import type { DiskView, GuestDiskView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { MIB, makeRaw } from "../support/images.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const BASE_MIB = 64;
/** What of that is not nothing, at the least. */
const CONTENT_MIB = 32;

/** How often an agent is ended anew where a layer came faster than that. */
const ATTEMPTS = 8;

/** What the sample guest says of the rows it commits to its disk. */
interface Rows {
  committed: number;
  wrong: number;
  after: number;
  tags: number[];
}

describe("forks to another host of a guest that writes its disk", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  let digest: string;
  before(async () => {
    hosts = await Hosts.start(2, { tls: true, configuration: { limits: { memoryMib: 4096 } } });
    [a, b] = [hosts.at(0), hosts.at(1)];
    const path = await makeRaw(join(a.stateDirectory, "golden.raw"), { seed: 7, sizeBytes: BASE_MIB * MIB });
    const file = await open(path, "r+");
    await file.write(randomBytes(CONTENT_MIB * MIB), 0, CONTENT_MIB * MIB, 24 * MIB);
    await file.close();
    digest = (await a.call("image.import", { path, identifier: "golden" })).image.digest;
    const disk = { image: "golden", sizeBytes: 256 * MIB };
    await runSample(a, { name: "web", hostPort: 8080, disks: [disk] });
  });
  after(async () => {
    await hosts.stop();
  });

  const rows = (host: Host, port: number, path: string) => ask<Rows>(host, port, `/disk/${path}`);
  const chainOf = async (host: Host, name: string): Promise<GuestDiskView["chain"]> => {
    const [disk] = (await host.call("guest.show", { name })).guest.disks ?? [];
    assert.ok(disk !== undefined, `guest ${name} has a disk`);
    return disk.chain;
  };
  const fileOf = (host: Host, id = "") => join(host.stateDirectory, "disks", id, "disk.qcow2");
  const disksOf = async (host: Host): Promise<DiskView[]> => (await host.call("disk.list", {})).disks;

  async function goOn(host: Host, port: number, count: number): Promise<void> {
    const { committed } = await rows(host, port, "status");
    const isThere = async () => (await rows(host, port, "status")).committed >= committed + count;
    await eventually(`${count} rows more`, isThere, 60_000);
  }

  const count = (what: string) => b.log.split(what).length - 1;

  async function arrived(host: Host): Promise<void> {
    const isHere = async () => {
      const { images } = await host.call("image.list", {});
      return [...(await disksOf(host)), ...images].every(({ arriving }) => arriving === undefined);
    };
    await eventually("all disks are here", isHere, 60_000);
  }

  async function remove(host: Host, name: string): Promise<void> {
    await host.call("guest.kill", { name });
    await host.call("guest.remove", { name });
  }

  /** Both have what was committed at the fork, whatever that was, and then only their own. */
  async function forkAndCompare(name: string, port: number): Promise<void> {
    await rows(a, 8080, "tag?value=1");
    await goOn(a, 8080, 20);
    const { tags } = await rows(a, 8080, "verify");
    const before = (await rows(a, 8080, "status")).committed;
    const [forked] = (
      await a.call("guest.fork", { name: "web", names: [name], to: [b.url], forwards: [`${port}:80`] })
    ).transfers;
    assert.equal(forked?.state, "running", JSON.stringify(forked));
    const childTag = await rows(b, port, "tag?value=2");
    const parentTag = await rows(a, 8080, "tag?value=3");
    await Promise.all([goOn(b, port, 20), goOn(a, 8080, 20)]);
    const [child, parent] = [await rows(b, port, "verify"), await rows(a, 8080, "verify")];
    assert.ok(childTag.committed >= before, "the child has all that was committed before");
    for (const [who, said, tagged, own, other] of [
      [name, child, childTag, 2, 3],
      ["web", parent, parentTag, 3, 2],
    ] as const) {
      assert.deepEqual([said.wrong, said.after], [0, 0], `${who}: ${JSON.stringify(said)}`);
      const news = said.tags.map((count, tag) => count - (tags[tag] ?? 0));
      assert.equal(news[own], said.committed - tagged.committed, `${who} has its own rows`);
      assert.equal(news[other], 0, `${who} has none of the other's`);
    }
    await arrived(b);
    const chains = [await chainOf(a, "web"), await chainOf(b, name)];
    assert.notEqual(chains[0]?.[0]?.id, chains[1]?.[0]?.id);
    assert.deepEqual(chains[0]?.slice(1), chains[1]?.slice(1));
    for (const { kind, id } of chains[1]?.slice(1) ?? []) {
      if (kind === "image") continue;
      assert.ok(readFileSync(fileOf(a, id)).equals(readFileSync(fileOf(b, id))), `${id} came as it is`);
      assert.equal(statSync(fileOf(b, id)).mode & 0o777, 0o444);
    }
    await goOn(b, port, 5);
    assert.equal((await rows(b, port, "verify")).wrong, 0);
    const [pauseUs, layers] = [forked?.pauseUs ?? 0, chains[1]?.length];
    console.log(`    pause ${pauseUs} µs, ${parent.committed} rows, ${layers} layers`);
  }

  /** Has a guest write so much that its layer takes a while to come. */
  async function writeMuch(host: Host, name: string, mark: string, mib = 64): Promise<void> {
    const { console: at } = await host.call("guest.console.open", { name });
    const command = `dd if=/dev/urandom of=/dev/vda bs=1M seek=128 count=${mib} conv=fsync 2>/dev/null; echo ${mark} $((6*7))\n`;
    await host.call("guest.console.input", { console: at, data: Buffer.from(command) });
    const logs = async () => (await host.call("guest.logs", { name, source: "console", lines: 50 })).lines;
    await eventually(
      `${name} has written`,
      async () => (await logs()).join("\n").includes(`${mark} 42`),
      60_000,
    );
    await host.call("guest.console.close", { console: at });
  }

  /** What was sent of disks so far, as it was on the wire. */
  const sentMib = async (): Promise<number> => (await a.call("agent.info", {})).blocks.sentBytes / MIB;

  test("leave each with what was committed at the instant, and then its own; what is there already does not move", async () => {
    await rows(a, 8080, "start?tag=1&pause=2000");
    await writeMuch(a, "web", "zero", 8);
    await forkAndCompare("one", 8090);
    const deployed = await sentMib();
    assert.ok(
      deployed > CONTENT_MIB + 8 && deployed < CONTENT_MIB + 12,
      `${deployed} MiB for the base disk and what was written since`,
    );
    const first = statSync(join(b.stateDirectory, "images", digest, "disk.raw"));
    const layers = new Set((await disksOf(b)).filter(({ frozen }) => frozen).map(({ id }) => id));
    await whenTransfersEnd(a);
    await writeMuch(a, "web", "first", 8);
    await forkAndCompare("two", 8091);
    const more = (await sentMib()) - deployed;
    assert.ok(more > 8 && more < 12, `${more} MiB for 8 MiB that were written since, and some rows`);
    const second = statSync(join(b.stateDirectory, "images", digest, "disk.raw"));
    assert.deepEqual(
      [second.ino, second.mtimeMs],
      [first.ino, first.mtimeMs],
      "nothing of the base disk moved",
    );
    for (const id of layers) assert.ok(!existsSync(join(b.stateDirectory, "disks", id, "filling")));
    assert.equal(count("a base disk is brought for a child"), 1);
    const moved = b.log.split("\n").filter((line) => line.includes("all of a disk is here"));
    const bytes = moved.map((line) => (JSON.parse(line) as { wireBytes: number }).wireBytes);
    console.log(`    layers on the wire: ${bytes.join(", ")} bytes`);
    assert.equal(bytes.length, 2, "each layer came once");
    assert.deepEqual(hosts.problems, []);
  });

  /** A child that lacks some of its layers when an agent is gone; where the link was faster than this, that is tried again. */
  async function forkAndLose(ended: Host, name: string, port: number): Promise<{ reading?: Promise<Rows> }> {
    for (let attempt = 1; ; attempt += 1) {
      await writeMuch(a, "web", `${name}-${attempt}`);
      await a.call("guest.fork", { name: "web", names: [name], to: [b.url], forwards: [`${port}:80`] });
      await ended.end("SIGKILL");
      const reading = ended === a ? rows(b, port, "verify") : undefined;
      await sleep(realClock, 1000);
      if (reading === undefined) return {};
      const [under] = (await disksOf(b)).flatMap(({ arriving }) => arriving ?? []);
      if (under !== undefined && under.hereBytes < under.fileBytes) {
        assert.ok(under.message !== undefined, "it says that it waits");
        return { reading };
      }
      assert.ok(
        attempt < ATTEMPTS,
        `all of the layer came before the agent was gone: ${JSON.stringify(under)}`,
      );
      await ended.start();
      await reading;
      await arrived(b);
      await whenTransfersEnd(a);
      await remove(b, name);
    }
  }

  test("wait for what they lack while either agent is gone, and go on then", async () => {
    for (const [name, port, ended] of [
      ["three", 8092, a],
      ["four", 8093, b],
    ] as const) {
      const { reading } = await forkAndLose(ended, name, port);
      await ended.start();
      for (const said of [await (reading ?? rows(b, port, "verify")), await rows(a, 8080, "verify")])
        assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
      await goOn(b, port, 10);
      await arrived(b);
      const [, frozen] = await chainOf(b, name);
      assert.ok(readFileSync(fileOf(a, frozen?.id)).equals(readFileSync(fileOf(b, frozen?.id))));
      await whenTransfersEnd(a);
      assert.equal((await b.guests()).get(name)?.state, "running");
      await goOn(b, port, 10);
      assert.equal((await rows(b, port, "verify")).wrong, 0);
      await remove(b, name);
    }
  });

  test("have what they stand on though their parent is gone", async () => {
    await writeMuch(a, "web", "five");
    // More layers than requests that one connection may have unanswered.
    for (let more = 0; more < 18; more += 1) {
      await a.call("guest.freeze", { name: "web" });
      await a.call("guest.thaw", { name: "web" });
    }
    await a.call("guest.fork", { name: "web", names: ["five"], to: [b.url], forwards: ["8094:80"] });
    await whenTransfersEnd(a);
    assert.ok((await chainOf(b, "five")).length > 18);
    await remove(a, "web");
    await arrived(b);
    await goOn(b, 8094, 10);
    const said = await rows(b, 8094, "verify");
    assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
  });

  test("leave nothing when they are gone", async () => {
    for (const name of ["one", "two", "five"]) await remove(b, name);
    for (const host of [a, b]) {
      const isEmpty = async () => (await readdir(join(host.stateDirectory, "disks"))).length === 0;
      await eventually(`${host.name} keeps no disks`, isEmpty, 20_000);
    }
  });
});
