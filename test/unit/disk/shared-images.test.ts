import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { copyFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf, sleep, realClock } from "../../../src/base/index.js";
import { digestFile, DiskError, type ImageStore } from "../../../src/disk/index.js";
import { allData, makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";

const isCode = (code: string) => (error: unknown) => codeOf(error) === code;
const NOW = { unusedForMs: 0, keepOwned: false, dryRun: false };

/** Two hosts on one directory, each with one of its own as well. */
async function withHosts(
  body: (hosts: { a: ImageStore; b: ImageStore; shared: string; directory: string }) => Promise<void>,
): Promise<void> {
  await withDirectory(async (directory) => {
    const shared = join(directory, "shared");
    const a = await openStore([shared, join(directory, "own-a")], { host: "hosta" });
    const b = await openStore([shared, join(directory, "own-b")], { host: "hostb" });
    await body({ a, b, shared, directory });
    await a.close();
    await b.close();
  });
}

test("concurrent imports of one image by two hosts end with one copy, which both have", async () => {
  await withHosts(async ({ a, b, shared, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 1, sizeBytes: 4 * MIB });
    const as = { tenant: "default", identifier: "base" };
    const imports = [a, b, a, b].map((store) => store.import(raw, as));
    const digests = new Set((await Promise.all(imports)).map(({ digest }) => digest));
    assert.equal(digests.size, 1);
    for (const store of [a, b]) {
      assert.deepEqual(
        (await store.list("default")).map(({ digest }) => digest),
        [...digests],
      );
      await store.verify("base", { tenant: "default" });
      await store.close();
    }
    assert.deepEqual(await readdir(shared), [...digests]);
  });
});

test("two hosts that give one name to two images at the same time end with one of them", async () => {
  await withHosts(async ({ a, b, directory }) => {
    const one = await makeRaw(join(directory, "one"), { seed: 2, sizeBytes: MIB });
    const other = await makeRaw(join(directory, "other"), { seed: 3, sizeBytes: MIB });
    for (let round = 0; round < 6; round += 1) {
      const identifier = `name-${round}`;
      const as = { tenant: "default", identifier };
      const outcomes = await Promise.allSettled([a.import(one, as), b.import(other, as)]);
      const given = outcomes.filter(({ status }) => status === "fulfilled");
      assert.equal(given.length, 1, "one of them is given");
      const seen = await Promise.all(
        [a, b].map(async (store) => (await store.find(identifier, "default")).digest),
      );
      assert.equal(seen[0], seen[1]);
      await a.remove(identifier, "default");
    }
  });
});

test("what one host uses, another neither removes from the tenant nor prunes; the mark goes with the use", async () => {
  await withHosts(async ({ a, b, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 4, sizeBytes: MIB });
    const { digest } = await a.import(raw, { tenant: "default", identifier: "base" });
    const held = await b.hold(digest, "default");
    assert.deepEqual((await a.stored())[0]?.otherHosts, ["hostb"]);
    assert.deepEqual(await a.prune(NOW), []);
    await assert.rejects(a.remove("base", "default"), isCode("in-use"));
    held.letGo();
    await b.close();
    assert.deepEqual(
      (await a.prune(NOW)).map((image) => image.digest),
      [digest],
    );
    await assert.rejects(b.hold(digest, "default"), isCode("no-such-image"));
  });
});

test("a mark that cannot be read counts as use", async () => {
  await withHosts(async ({ a, shared, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 5, sizeBytes: MIB });
    const { digest } = await a.import(raw, { tenant: "default", identifier: "base" });
    const mark = join(shared, digest, "hosts", "id-of-hostc.json");
    await writeFile(mark, "{");
    assert.deepEqual(await a.prune(NOW), []);
    await rm(mark);
    assert.equal((await a.prune(NOW)).length, 1);
  });
});

test("while one host holds and the other prunes, over and over, what is held is always there", async () => {
  await withHosts(async ({ a, b, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 6, sizeBytes: MIB });
    const as = { tenant: "default", identifier: "base" };
    let pruned = 0;
    let held = 0;
    let over = false;
    const pruning = (async () => {
      while (!over) {
        pruned += (await a.prune(NOW)).length;
        await sleep(realClock, 20);
      }
    })();
    const { digest } = await digestFile(raw, { clock: realClock, findData: allData });
    try {
      for (let round = 0; round < 12; round += 1) {
        await b.import(raw, as);
        try {
          const image = await b.hold(digest, "default");
          held += 1;
          await sleep(realClock, round % 5);
          const content = await digestFile(image.path, { clock: realClock, findData: allData });
          assert.equal(content.digest, digest);
          image.letGo();
        } catch (error) {
          assert.ok(error instanceof DiskError && error.code === "no-such-image", String(error));
        }
      }
    } finally {
      over = true;
      await pruning;
    }
    assert.ok(held > 0 && pruned > 0, `held ${held} times, pruned ${pruned} times`);
  });
});

test("who begins to use an image waits while another host is about to set it aside, and not for one that has gone", async () => {
  await withHosts(async ({ b, shared, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 6, sizeBytes: MIB });
    const { digest } = await b.import(raw, { tenant: "default" });
    const intention = join(shared, digest, "removing-id-of-hosta");
    await writeFile(intention, "");
    let isHeld = false;
    const holding = b.hold(digest, "default").finally(() => (isHeld = true));
    await sleep(realClock, 20);
    assert.equal(isHeld, false);
    await rm(intention);
    (await holding).letGo();
    await writeFile(intention, "");
    (await b.hold(digest, "default")).letGo();
    const own = join(shared, digest, "removing-id-of-hostb");
    await writeFile(own, "");
    await (await openStore(shared, { host: "hostb" })).close();
    assert.equal(existsSync(own), false, "what an agent left that ended is gone");
  });
});

test("an image that was brought for a chain is held from the first, has no owner, and replaces nothing", async () => {
  await withHosts(async ({ a, b, shared, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 7, sizeBytes: 2 * MIB });
    const content = await digestFile(raw, { clock: realClock, findData: allData });
    const bring = async (store: ImageStore) => {
      const unfinished = await store.begin();
      await copyFile(raw, unfinished.path);
      return unfinished.publish(content, "default");
    };
    assert.equal(await a.has(content.digest), false);
    const held = await Promise.all([bring(a), bring(b)]);
    assert.equal(held[0]?.path, held[1]?.path);
    assert.equal(await b.has(content.digest), true);
    assert.deepEqual(await a.list("default"), []);
    assert.deepEqual(await a.prune(NOW), []);
    for (const one of held) one.letGo();
    const dropped = await a.begin();
    await dropped.drop();
    await a.close();
    await b.close();
    assert.equal((await a.prune({ ...NOW, keepOwned: true })).length, 1);
    assert.deepEqual(await readdir(shared), []);
  });
});

test("tenants share bytes without seeing, probing, changing or removing each other's images", async () => {
  await withHosts(async ({ a, shared, directory }) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 8, sizeBytes: MIB });
    const ours = await a.import(raw, { tenant: "acme", identifier: "base" });
    assert.deepEqual(await a.list("globex"), []);
    const answers: string[] = [];
    for (const reference of [ours.digest, ours.digest.slice(0, 8), "base", "0".repeat(64), "else"]) {
      const probe = a.find(reference, "globex");
      await assert.rejects(probe, (error: Error) => {
        assert.equal(codeOf(error), "no-such-image");
        answers.push(error.message.replaceAll(reference, "…"));
        return true;
      });
      await assert.rejects(a.verify(reference, { tenant: "globex" }), isCode("no-such-image"));
      await assert.rejects(a.remove(reference, "globex"), isCode("no-such-image"));
    }
    assert.equal(new Set(answers).size, 1, "what others have is answered as what nobody has");
    const theirs = await a.import(raw, { tenant: "globex", identifier: "base" });
    assert.equal(theirs.digest, ours.digest);
    assert.ok(theirs.sinceMs >= ours.sinceMs);
    assert.deepEqual({ ...theirs, sinceMs: 0 }, { ...ours, tenant: "globex", sinceMs: 0 });
    assert.equal((await readdir(shared)).filter((name) => !name.startsWith(".")).length, 1);
    const held = await a.hold(ours.digest, "acme");
    assert.equal((await a.find("base", "globex")).isUsed, false, "others' use is not seen");
    await a.remove("base", "globex");
    await assert.rejects(a.find("base", "globex"), isCode("no-such-image"));
    assert.equal((await a.find("base", "acme")).sinceMs, ours.sinceMs);
    held.letGo();
  });
});

test("a directory that cannot be read is no reason to do without the others", async () => {
  await withDirectory(async (directory) => {
    const [good, bad] = [join(directory, "good"), join(directory, "bad")];
    await symlink(bad, bad);
    const raw = await makeRaw(join(directory, "raw"), { seed: 10, sizeBytes: MIB });
    const store = await openStore([good, bad]);
    const { digest } = await store.import(raw, { tenant: "default", identifier: "base" });
    await store.settle();
    const held = await store.hold(digest, "default");
    assert.equal((await store.list("default")).length, 1);
    held.letGo();
    await store.close();
    assert.equal((await store.prune(NOW)).length, 1);
  });
});

test("images of every directory are seen, in order; one that is not mounted is left out", async () => {
  await withDirectory(async (directory) => {
    const [one, two, none] = ["one", "two", "none"].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    const raw = await makeRaw(join(directory, "raw"), { seed: 9, sizeBytes: MIB });
    const first = await openStore(two, { host: "hosta" });
    await first.import(raw, { tenant: "default", identifier: "base" });
    const second = await openStore([one, none, two], { host: "hostb" });
    assert.equal((await second.stored())[0]?.directory, two);
    // What is in one directory is not brought into another.
    await second.import(raw, { tenant: "default", identifier: "base" });
    await second.close();
    assert.deepEqual(await readdir(one), []);
    await rm(one, { recursive: true });
    const unmounted = await openStore([none, one], { host: "hostc" });
    await rm(none, { recursive: true });
    await assert.rejects(unmounted.import(raw, { tenant: "default" }), isCode("no-room"));
    await first.close();
  });
});
