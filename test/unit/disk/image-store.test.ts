import assert from "node:assert/strict";
import {
  access,
  chmod,
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf, realClock } from "../../../src/base/index.js";
import { digestFile, type ImportProgress } from "../../../src/disk/index.js";
import {
  allData,
  makeRaw,
  MIB,
  movableClock,
  openStore,
  toQcow2,
  withDirectory,
} from "../../support/images.js";

const DAY_MS = 24 * 3600 * 1000;
const prune = (unusedForMs: number) => ({ unusedForMs, keepOwned: false, dryRun: false });

const isCode = (code: string) => (error: unknown) => codeOf(error) === code;

for (let seed = 1; seed <= 6; seed += 1) {
  test(`random sparse content ${seed} gives one image from raw and from qcow2`, async () => {
    await withDirectory(async (directory) => {
      const sizeBytes = [512, MIB, MIB + 512, 3 * MIB, 5 * MIB - 512, 9 * MIB][seed - 1] as number;
      const raw = await makeRaw(join(directory, "raw"), { seed, sizeBytes, pieces: seed });
      const qcow2 = toQcow2(raw, join(directory, "qcow2"), ...(seed % 2 === 0 ? ["-c"] : []));
      const store = await openStore(join(directory, "images"));
      const fromQcow2 = await store.import(qcow2, { tenant: "default", identifier: "from-qcow2" });
      const fromRaw = await store.import(raw, { tenant: "default", identifier: "from-raw" });
      assert.equal(fromRaw.digest, fromQcow2.digest);
      const direct = await digestFile(raw, { clock: realClock, findData: allData });
      assert.equal(direct.digest, fromRaw.digest);
      const held = await store.hold(fromRaw.digest, "default");
      assert.deepEqual(await readFile(held.path), await readFile(raw));
      held.letGo();
      assert.equal((await stat(held.path)).mode & 0o777, 0o444);
      assert.deepEqual(
        (await store.list("default")).map(({ identifier }) => identifier),
        ["from-qcow2", "from-raw"],
      );
      assert.equal((await store.stored()).length, 1);
      await store.close();
      assert.deepEqual(await readdir(join(directory, "images")), [fromRaw.digest]);
    });
  });
}

test("holes and written zeros take no room, and are the same", async () => {
  await withDirectory(async (directory) => {
    const sparse = join(directory, "sparse");
    const full = join(directory, "full");
    await writeFile(sparse, "begins");
    await (await open(sparse, "r+").then(async (file) => (await file.truncate(16 * MIB), file))).close();
    await writeFile(full, Buffer.concat([Buffer.from("begins"), Buffer.alloc(16 * MIB - 6)]));
    const store = await openStore(join(directory, "images"));
    const one = await store.import(sparse, { tenant: "default" });
    const other = await store.import(full, { tenant: "default" });
    assert.equal(one.digest, other.digest);
    const [image] = await store.stored();
    assert.ok((image?.allocatedBytes ?? Infinity) <= MIB, `${image?.allocatedBytes} bytes are taken`);
    await store.close();
  });
});

test("an import tells how far it is, and can be cancelled, which leaves nothing", async () => {
  await withDirectory(async (directory) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 7, sizeBytes: 8 * MIB });
    const qcow2 = toQcow2(raw, join(directory, "qcow2"));
    const store = await openStore(join(directory, "images"));
    const phases: ImportProgress[] = [];
    await store.import(qcow2, { tenant: "default", onProgress: (progress) => phases.push(progress) });
    assert.deepEqual([...new Set(phases.map(({ phase }) => phase))], ["copy", "convert", "digest"]);
    for (const phase of ["copy", "convert", "digest"]) {
      const last = phases.filter((one) => one.phase === phase).at(-1);
      assert.equal(last?.doneBytes, last?.sizeBytes);
    }
    const other = await makeRaw(join(directory, "other"), { seed: 8, sizeBytes: 8 * MIB });
    const cancelling = new AbortController();
    const onProgress = ({ doneBytes }: ImportProgress): void => {
      if (doneBytes >= 3 * MIB) cancelling.abort();
    };
    const cancelled = store.import(other, { tenant: "default", onProgress, signal: cancelling.signal });
    await assert.rejects(cancelled, isCode("cancelled"));
    await store.close();
    assert.equal((await readdir(join(directory, "images"))).length, 1);
  });
});

test("a flipped byte is found and its place named; importing the content again puts it right", async () => {
  await withDirectory(async (directory) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 9, sizeBytes: 6 * MIB, pieces: 20 });
    const store = await openStore(join(directory, "images"));
    const image = await store.import(raw, { tenant: "default", identifier: "base" });
    await store.verify("base", { tenant: "default" });
    const { path, letGo } = await store.hold(image.digest, "default");
    letGo();
    await chmod(path, 0o600);
    const file = await open(path, "r+");
    const at = 4 * MIB + 77;
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, at);
    await file.write(Buffer.from([(byte[0] as number) ^ 1]), 0, 1, at);
    await file.close();
    await assert.rejects(store.verify("base", { tenant: "default" }), (error: Error) => {
      assert.equal(codeOf(error), "damaged");
      assert.match(error.message, /image base is damaged: bytes 4194304 to 5242879 are not/);
      return true;
    });
    await assert.rejects(store.hold(image.digest, "default"), isCode("damaged"));
    assert.match((await store.find("base", "default")).problem ?? "", /4194304 to 5242879/);
    const again = await store.import(raw, { tenant: "default", identifier: "base" });
    assert.equal(again.problem, undefined);
    await store.verify("base", { tenant: "default" });
    (await store.hold(image.digest, "default")).letGo();
    await store.close();
  });
});

test("an agent that takes over what is used writes nothing for it, for there may be no room, and gives up what is not", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 13, sizeBytes: MIB });
    const before = await openStore(images);
    const { digest } = await before.import(raw, { tenant: "acme", identifier: "base" });
    for (const tenant of ["acme", "globex"]) await before.hold(digest, tenant);
    await before.close();
    // A record is replaced by another file.
    const mark = async () => (await stat(join(images, digest, "hosts", "id-of-hosta.json"))).ino;
    const left = await mark();
    const next = await openStore(images);
    const held = await next.hold(digest, "acme");
    await next.hold(digest, "acme");
    assert.equal(await mark(), left);
    await next.settle();
    assert.notEqual(await mark(), left);
    const usedBy = async () => (await (await openStore(images, { host: "hostb" })).stored())[0]?.usedBy;
    assert.deepEqual(await usedBy(), ["acme"]);
    await next.hold(digest, "globex");
    assert.deepEqual(await usedBy(), ["acme", "globex"]);
    held.letGo();
    await next.close();
    assert.deepEqual(await usedBy(), ["acme", "globex"]);
  });
});

test("who imports what somebody else has had for long has it as long as anybody before it is pruned", async () => {
  await withDirectory(async (directory) => {
    const { clock, move } = movableClock();
    const raw = await makeRaw(join(directory, "raw"), { seed: 12, sizeBytes: MIB });
    const store = await openStore(join(directory, "images"), { clock });
    const month = prune(30 * DAY_MS);
    await store.import(raw, { tenant: "acme", identifier: "base" });
    for (const tenant of ["globex", "globex", "acme"]) {
      move(31 * DAY_MS);
      await store.import(raw, { tenant, identifier: "base" });
      assert.deepEqual(await store.prune(month), []);
    }
    move(31 * DAY_MS);
    assert.equal((await store.prune(month)).length, 1);
    await store.close();
  });
});

test("a crash leaves no half image: what this host left is removed at open, what others make is left alone", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    await mkdir(join(images, ".unfinished-id-of-hosta-1"), { recursive: true });
    await writeFile(join(images, ".unfinished-id-of-hosta-1", "disk.raw"), "half");
    await mkdir(join(images, ".unfinished-id-of-hostb-1"));
    await mkdir(join(images, ".filling-something"));
    const { clock, move } = movableClock();
    const store = await openStore(images, { clock });
    assert.deepEqual((await readdir(images)).sort(), [".filling-something", ".unfinished-id-of-hostb-1"]);
    await store.prune(prune(0));
    assert.equal((await readdir(images)).length, 2);
    move(2 * DAY_MS);
    await store.prune(prune(0));
    assert.deepEqual(await readdir(images), [".filling-something"]);
    await store.close();
  });
});

test("a crash in the middle of a removal puts the image back, or removes what is left of it", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 10, sizeBytes: MIB });
    const first = await openStore(images);
    const { digest } = await first.import(raw, { tenant: "default", identifier: "base" });
    await first.close();
    await rename(join(images, digest), join(images, ".removing-id-of-hosta-1"));
    const second = await openStore(images);
    assert.equal((await second.find("base", "default")).digest, digest);
    await second.close();
    await rename(join(images, digest), join(images, ".removing-id-of-hosta-1"));
    await rm(join(images, ".removing-id-of-hosta-1", "image.json"));
    const third = await openStore(images);
    assert.deepEqual(await readdir(images), []);
    await third.close();
  });
});

test("what is used is neither removed nor pruned; what is not is pruned when its time has come", async () => {
  await withDirectory(async (directory) => {
    const { clock, move } = movableClock();
    const images = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 11, sizeBytes: MIB });
    const store = await openStore(images, { clock });
    const { digest } = await store.import(raw, { tenant: "default", identifier: "base" });
    const held = await store.hold(digest, "default");
    await assert.rejects(store.remove("base", "default"), isCode("in-use"));
    assert.equal((await store.find("base", "default")).isUsed, true);
    move(100 * DAY_MS);
    assert.deepEqual(await store.prune(prune(0)), []);
    held.letGo();
    held.letGo();
    await store.close();
    assert.equal((await store.find("base", "default")).isUsed, false);
    move(29 * DAY_MS);
    assert.deepEqual(await store.prune(prune(30 * DAY_MS)), []);
    move(2 * DAY_MS);
    assert.deepEqual(await store.prune({ ...prune(30 * DAY_MS), keepOwned: true }), []);
    const would = await store.prune({ ...prune(30 * DAY_MS), dryRun: true });
    assert.deepEqual(
      would.map((image) => image.digest),
      [digest],
    );
    await access(join(images, digest));
    await store.prune(prune(30 * DAY_MS));
    assert.deepEqual(await readdir(images), []);
    await assert.rejects(store.find("base", "default"), isCode("no-such-image"));
    await assert.rejects(store.hold(digest, "default"), isCode("no-such-image"));
    await store.close();
  });
});

test("a mark outlives the agent, until the next one has found its chains", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 12, sizeBytes: MIB });
    const other = await makeRaw(join(directory, "other"), { seed: 13, sizeBytes: MIB });
    const first = await openStore(images);
    const kept = await first.import(raw, { tenant: "default", identifier: "kept" });
    const lost = await first.import(other, { tenant: "default", identifier: "lost" });
    await first.hold(kept.digest, "default");
    await first.hold(lost.digest, "default");
    const second = await openStore(images);
    assert.deepEqual(await second.prune(prune(0)), []);
    await second.hold(kept.digest, "default");
    await second.settle();
    const pruned = await second.prune(prune(0));
    assert.deepEqual(
      pruned.map(({ digest }) => digest),
      [lost.digest],
    );
    await second.close();
  });
});

test("references: identifiers, digests, starts of digests", async () => {
  await withDirectory(async (directory) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 14, sizeBytes: MIB });
    const store = await openStore(join(directory, "images"));
    const { digest } = await store.import(raw, { tenant: "default" });
    assert.equal((await store.find(digest, "default")).identifier, undefined);
    assert.equal((await store.find(digest.slice(0, 8), "default")).digest, digest);
    await assert.rejects(store.find("none", "default"), isCode("no-such-image"));
    await assert.rejects(store.find("../x", "default"), isCode("bad-name"));
    await assert.rejects(store.find("base", "../x"), isCode("bad-name"));
    await assert.rejects(
      store.import(raw, { tenant: "default", identifier: "0123abcd" }),
      isCode("bad-name"),
    );
    await assert.rejects(store.hold("0123abcd", "default"), isCode("bad-name"));
    // It has a name from now on, and is still one image.
    await store.import(raw, { tenant: "default", identifier: "base" });
    assert.deepEqual(
      (await store.list("default")).map(({ identifier }) => identifier),
      ["base"],
    );
    await store.close();
  });
});

test("a digest's first digits that fit two images are refused, naming both", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 15, sizeBytes: MIB });
    const store = await openStore(images);
    const { digest } = await store.import(raw, { tenant: "default" });
    // No two contents with digests so alike are at hand.
    const alike = `${digest.slice(0, 60)}${digest.endsWith("0000") ? "1111" : "0000"}`;
    await cp(join(images, digest), join(images, alike), { recursive: true });
    const record = JSON.parse(await readFile(join(images, digest, "image.json"), "utf8")) as object;
    await writeFile(join(images, alike, "image.json"), JSON.stringify({ ...record, digest: alike }));
    await assert.rejects(store.find(digest.slice(0, 60), "default"), (error: Error) => {
      assert.equal(codeOf(error), "ambiguous");
      assert.ok(error.message.includes(alike) && error.message.includes(digest));
      return true;
    });
    assert.equal((await store.find(digest, "default")).digest, digest);
    await store.close();
  });
});

test("a name is one image's; the same content under the same name is the same image", async () => {
  await withDirectory(async (directory) => {
    const raw = await makeRaw(join(directory, "raw"), { seed: 16, sizeBytes: MIB });
    const other = await makeRaw(join(directory, "other"), { seed: 17, sizeBytes: MIB });
    const images = join(directory, "images");
    const store = await openStore(images);
    const first = await store.import(raw, { tenant: "default", identifier: "base" });
    assert.deepEqual(await store.import(raw, { tenant: "default", identifier: "base" }), first);
    await assert.rejects(
      store.import(other, { tenant: "default", identifier: "base" }),
      isCode("name-taken"),
    );
    const both = await Promise.allSettled(
      [raw, other].map((path) => store.import(path, { tenant: "default", identifier: "new" })),
    );
    assert.deepEqual(both.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    await store.close();
    assert.equal((await readdir(images)).filter((name) => name.startsWith(".")).length, 0);
  });
});
