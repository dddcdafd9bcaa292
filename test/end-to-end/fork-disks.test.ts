import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import type { GuestDiskView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const MIB = 1024 * 1024;

/** What the sample guest says of the rows it commits to its disk. */
interface Rows {
  committed: number;
  wrong: number;
  after: number;
  tags: number[];
}

describe("forks of a guest that writes its disk", () => {
  let hosts: Hosts;
  let a: Host;
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { limits: { memoryMib: 4096 } } });
    a = hosts.at(0);
    await runSample(a, { name: "web", hostPort: 8080, disks: [{ sizeBytes: 256 * MIB }] });
  });
  after(async () => {
    await hosts.stop();
  });

  const rows = (port: number, path: string) => ask<Rows>(a, port, `/disk/${path}`);
  const disksOf = async (name: string): Promise<GuestDiskView> => {
    const [disk] = (await a.call("guest.show", { name })).guest.disks ?? [];
    assert.ok(disk !== undefined, `guest ${name} has a disk`);
    return disk;
  };
  const pathOf = (id: string) => join(a.stateDirectory, "disks", id, "disk.qcow2");
  const digestOf = (id: string) =>
    createHash("sha256")
      .update(readFileSync(pathOf(id)))
      .digest("hex");
  const committed = async (port: number): Promise<number> => (await rows(port, "status")).committed;

  /** Waits until the guest has committed so many rows more. */
  async function goOn(port: number, count: number): Promise<void> {
    const before = await committed(port);
    await eventually(`${count} rows more`, async () => (await committed(port)) >= before + count, 60_000);
  }

  async function remove(name: string): Promise<void> {
    await a.call("guest.kill", { name });
    await a.call("guest.remove", { name });
  }

  /** Both have what was committed at the fork, whatever that was, and then only their own. */
  async function forkAndCompare(memory: "shared" | "copied", name: string, port: number): Promise<void> {
    await rows(8080, "tag?value=1");
    await goOn(8080, 20);
    const { tags } = await rows(8080, "verify");
    const before = await committed(8080);
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      names: [name],
      memory,
      forwards: [`${port}:80`],
    });
    const pauseUs = transfers[0]?.pauseUs ?? 0;
    const childTag = await rows(port, "tag?value=2");
    const parentTag = await rows(8080, "tag?value=3");
    const frozen = (await disksOf("web")).chain[1];
    assert.ok(frozen !== undefined);
    const digest = digestOf(frozen.id);
    await Promise.all([goOn(port, 30), goOn(8080, 30)]);
    const [child, parent] = [await rows(port, "verify"), await rows(8080, "verify")];
    assert.ok(childTag.committed >= before, "the child has all that was committed before");
    for (const [who, said, tagged, own, other] of [
      [name, child, childTag, 2, 3],
      ["web", parent, parentTag, 3, 2],
    ] as const) {
      assert.equal(said.wrong, 0, `${who}: ${JSON.stringify(said)}`);
      assert.equal(said.after, 0, `${who} has no rows of the other's: ${JSON.stringify(said)}`);
      const news = said.tags.map((count, tag) => count - (tags[tag] ?? 0));
      assert.equal(news[own], said.committed - tagged.committed, `${who} has its own rows`);
      assert.equal(news[other], 0);
    }
    assert.equal(digestOf(frozen.id), digest, "what is frozen is not written");
    assert.equal(statSync(pathOf(frozen.id)).mode & 0o777, 0o444);
    const chains = [(await disksOf("web")).chain, (await disksOf(name)).chain];
    assert.notEqual(chains[0]?.[0]?.id, chains[1]?.[0]?.id);
    assert.deepEqual(chains[0]?.slice(1), chains[1]?.slice(1));
    console.log(`    ${memory}: pause ${pauseUs} µs, ${parent.committed} rows`);
    await whenTransfersEnd(a);
    await remove(name);
    await rows(8080, "stop");
    assert.equal((await rows(8080, "verify")).wrong, 0);
    await rows(8080, "start?tag=1");
  }

  test("leave each with what was committed at the instant, and then its own", async () => {
    await rows(8080, "start?tag=1&pause=2000");
    for (let round = 0; round < 3; round += 1) {
      await forkAndCompare("shared", "left", 8090);
      await forkAndCompare("copied", "right", 8091);
    }
    assert.deepEqual(hosts.problems, []);
  });

  /** Nothing of a guest's disk is wrong. */
  async function verify(port: number): Promise<Rows> {
    const said = await rows(port, "verify");
    assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
    return said;
  }

  test("of one instant, and of a template, stand on the same layers", async () => {
    await a.call("guest.fork", { name: "web", names: ["one", "two"], forwards: ["8090:80"] });
    const chains = await Promise.all(["web", "one", "two"].map(async (name) => (await disksOf(name)).chain));
    assert.equal(new Set(chains.map(([top]) => top?.id)).size, 3);
    for (const chain of chains) assert.deepEqual(chain.slice(1), chains[0]?.slice(1));
    await Promise.all([goOn(8090, 10), goOn(8091, 10), goOn(8080, 10)]);
    for (const port of [8090, 8091, 8080]) await verify(port);
    await remove("one");
    await a.call("guest.freeze", { name: "two" });
    const frozen = (await disksOf("two")).chain;
    for (const name of ["three", "four"]) {
      await a.call("guest.fork", { name: "two", names: [name], forwards: ["8092:80"] });
      assert.deepEqual((await disksOf(name)).chain.slice(1), frozen.slice(1));
      await goOn(8092, 10);
      await verify(8092);
      await whenTransfersEnd(a);
      await remove(name);
    }
    await a.call("guest.thaw", { name: "two" });
    await goOn(8091, 10);
    await verify(8091);
    await remove("two");
    assert.deepEqual(hosts.problems, []);
  });

  test("that fail leave the parent's disk as it was, and so does a host that it cannot go to", async () => {
    const before = (await disksOf("web")).chain;
    const files = (await readdir(join(a.stateDirectory, "disks"))).toSorted();
    const names = ["web"];
    await assert.rejects(a.call("guest.fork", { name: "web", names }), { code: /name-taken|prepare-failed/ });
    assert.deepEqual((await disksOf("web")).chain, before);
    assert.deepEqual((await readdir(join(a.stateDirectory, "disks"))).toSorted(), files);
    const elsewhere = "127.0.0.99:7170";
    const code = /prepare-failed|unreachable/;
    await assert.rejects(a.call("guest.fork", { name: "web", to: [elsewhere] }), { code });
    await assert.rejects(a.call("guest.migrate", { name: "web", to: elsewhere }), { code });
    assert.deepEqual((await disksOf("web")).chain, before);
    assert.deepEqual((await readdir(join(a.stateDirectory, "disks"))).toSorted(), files);
    await goOn(8080, 10);
    await verify(8080);
  });

  test("go on with a new agent, wherever the one before was killed", async () => {
    for (const delayMs of [0, 20, 60, 100, 140, 180]) {
      const fork = a.call("guest.fork", { name: "web", names: ["torn"], forwards: ["8090:80"] });
      fork.catch(() => {});
      await sleep(realClock, delayMs);
      await a.end("SIGKILL");
      await a.start();
      await eventually(
        "no fork is under way",
        async () => (await a.guests()).get("web")?.state === "running",
      );
      await goOn(8080, 10);
      await verify(8080);
      const tops = new Set<string | undefined>();
      const listed = (await a.call("disk.list", {})).disks;
      for (const { name, disks } of (await a.guests()).values()) {
        const top = disks?.[0]?.chain[0]?.id;
        assert.ok(!tops.has(top), `${name} writes what another guest writes`);
        assert.equal(listed.find(({ id }) => id === top)?.guest, name);
        tops.add(top);
      }
      assert.deepEqual(
        listed.filter(({ frozen, children }) => frozen && children === 0),
        [],
      );
      if ((await a.guests()).has("torn")) {
        await goOn(8090, 5);
        await verify(8090);
        await whenTransfersEnd(a);
        await remove("torn");
      }
    }
  });

  test("over a base disk read that, and write none of it", async () => {
    const file = join(a.stateDirectory, "golden.raw");
    const content = randomBytes(4 * MIB);
    writeFileSync(file, content);
    const { image } = await a.call("image.import", { path: file, identifier: "golden" });
    const gold = { image: "golden", sizeBytes: 64 * MIB };
    await runSample(a, { name: "gold", hostPort: 8085, disks: [gold] });
    assert.deepEqual((await disksOf("gold")).chain.slice(1), [{ kind: "image", id: image.digest }]);
    const stored = join(a.stateDirectory, "images", image.digest, "disk.raw");
    const before = createHash("sha256").update(readFileSync(stored)).digest("hex");
    // The first rows overwrite what comes before: the table and the log's beginning.
    await rows(8085, "start?tag=1&pause=1000");
    await goOn(8085, 20);
    await a.call("guest.fork", { name: "gold", names: ["gilt"], forwards: ["8090:80"] });
    await Promise.all([goOn(8085, 10), goOn(8090, 10)]);
    await verify(8085);
    await verify(8090);
    const wanted = createHash("sha256").update(content.subarray(-4096)).digest("hex");
    for (const name of ["gold", "gilt"]) {
      const { console: at } = await a.call("guest.console.open", { name });
      const command = "dd if=/dev/vda bs=4096 skip=1023 count=1 2>/dev/null | sha256sum\n";
      await a.call("guest.console.input", { console: at, data: Buffer.from(command) });
      const logs = async () => (await a.call("guest.logs", { name, source: "console", lines: 50 })).lines;
      await eventually(`${name} reads the base disk`, async () => (await logs()).join("\n").includes(wanted));
      await a.call("guest.console.close", { console: at });
    }
    assert.equal(createHash("sha256").update(readFileSync(stored)).digest("hex"), before);
    await assert.rejects(a.call("image.remove", { reference: "golden" }), { code: "in-use" });
    const missing = { name: "none", kernel: "/x", disks: [{ image: "nothing" }] };
    await assert.rejects(a.call("guest.run", missing), { code: "no-such-image" });
    await remove("gilt");
    await remove("gold");
    await a.call("image.remove", { reference: "golden" });
  });

  test("leave nothing when they are gone", async () => {
    await remove("web");
    assert.deepEqual(await readdir(join(a.stateDirectory, "disks")), []);
    assert.deepEqual((await a.call("disk.list", {})).disks, []);
  });
});
