import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { realClock, silentLog } from "../../../src/base/index.js";
import {
  DiskError,
  DiskStore,
  emptyQcow2,
  MAX_CHAIN_DISKS,
  MAX_DISK_BYTES,
  tenantOfDisk,
} from "../../../src/disk/index.js";

const MIB = 1024 * 1024;
const DIGEST = "ab".repeat(32);
const WRITER = "11111111-2222-4333-8444-555555555555";

describe("the differencing disks of a host", () => {
  let root: string;
  let held: number;
  let heldFor: (string | undefined)[];
  let store: DiskStore;

  const images = {
    async hold(digest: string, tenant?: string) {
      if (digest !== DIGEST) throw new DiskError("no-such-image", `there is no ${digest}`);
      held += 1;
      heldFor.push(tenant);
      let isHeld = true;
      return {
        digest,
        path: join(root, "base.raw"),
        sizeBytes: 64 * MIB,
        letGo() {
          if (isHeld) held -= 1;
          isHeld = false;
        },
      };
    },
  };
  const openStore = () =>
    DiskStore.open({ directory: join(root, "disks"), images, clock: realClock, log: silentLog });
  const qemuImg = (...args: string[]) => execFileSync("qemu-img", args, { encoding: "utf8" });
  const codeIs = (code: string) => (error: unknown) => error instanceof DiskError && error.code === code;

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), "rd-"));
    held = 0;
    heldFor = [];
    writeFileSync(join(root, "base.raw"), "");
    store = await openStore();
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  test("are what the emulator's own tool takes for sound, empty and on top of each other", async () => {
    execFileSync("truncate", ["-s", "64M", join(root, "base.raw")]);
    const first = await store.create({ parent: { image: DIGEST }, writer: WRITER });
    const second = await store.create({ parent: { disk: first.id }, sizeBytes: 100 * MIB, writer: WRITER });
    for (const { id } of [first, second]) qemuImg("check", "-q", store.pathOf(id));
    const info = JSON.parse(qemuImg("info", "--backing-chain", "--output=json", store.pathOf(second.id))) as {
      "virtual-size": number;
      "full-backing-filename"?: string;
      "backing-filename-format"?: string;
    }[];
    assert.deepEqual(
      info.map((layer) => [
        layer["virtual-size"],
        layer["full-backing-filename"],
        layer["backing-filename-format"],
      ]),
      [
        [100 * MIB, store.pathOf(first.id), "qcow2"],
        [64 * MIB, join(root, "base.raw"), "raw"],
        [64 * MIB, undefined, undefined],
      ],
    );
    const map = JSON.parse(qemuImg("map", "--output=json", store.pathOf(second.id))) as { zero: boolean }[];
    assert.ok(map.every(({ zero }) => zero));
  });

  test("are a tenant's, and stand on its own alone", async () => {
    const own = await store.create({ parent: { image: DIGEST }, writer: WRITER, tenant: "acme" });
    const hosts = await store.create({ sizeBytes: MIB, writer: WRITER });
    for (const { id } of [own, hosts]) await store.freeze(id);
    const over = await store.create({ parent: { disk: own.id }, writer: WRITER, tenant: "acme" });
    const missing = "99999999-2222-4333-8444-555555555555";
    for (const [tenant, id] of [
      ["rival", own.id],
      ["default", own.id],
      ["acme", hosts.id],
      ["acme", missing],
    ] as const) {
      const refusal = {
        code: "no-such-disk",
        message: `the tenant ${tenant} has no disk ${id} on this host`,
      };
      assert.throws(() => store.get(id, tenant), refusal);
      await assert.rejects(store.create({ parent: { disk: id }, writer: WRITER, tenant }), refusal);
    }
    assert.equal(store.get(own.id, "acme").id, own.id);
    assert.equal(store.get(hosts.id, "default").id, hosts.id);
    store.close();
    store = await openStore();
    assert.deepEqual(
      [own, hosts, over].map(({ id }) => tenantOfDisk(store.get(id))),
      ["acme", "default", "acme"],
      "it outlives the agent",
    );
    assert.deepEqual(heldFor, ["acme", "acme"], "the base disk is used for the tenant");
  });

  test("may be as large as is allowed, and no larger", async () => {
    const path = join(root, "large.qcow2");
    writeFileSync(path, emptyQcow2(MAX_DISK_BYTES));
    qemuImg("check", "-q", path);
    const create = (sizeBytes?: number) =>
      store.create({ ...(sizeBytes === undefined ? {} : { sizeBytes }), writer: WRITER });
    await assert.rejects(create(MAX_DISK_BYTES + 512), codeIs("bad-size"));
    await assert.rejects(create(513), codeIs("bad-size"));
    await assert.rejects(create(), codeIs("bad-size"));
    const over = { parent: { image: DIGEST }, sizeBytes: 512, writer: WRITER };
    await assert.rejects(store.create(over), codeIs("bad-size"));
    assert.equal(held, 0, "the base disk of what was refused is let go of");
    assert.deepEqual(readdirSync(store.directory), []);
  });

  test("are found again with their chains, and what a crash left half made is gone", async () => {
    const first = await store.create({ parent: { image: DIGEST }, writer: WRITER });
    const second = await store.create({ parent: { disk: first.id }, writer: WRITER });
    await store.freeze(first.id);
    mkdirSync(join(store.directory, ".unfinished-1"));
    writeFileSync(join(store.directory, ".unfinished-1", "disk.qcow2"), "half");
    const again = await openStore();
    assert.deepEqual(readdirSync(store.directory).toSorted(), [first.id, second.id].toSorted());
    assert.deepEqual(again.chainOf(second.id), [
      { id: second.id, format: "qcow2", path: store.pathOf(second.id) },
      { id: first.id, format: "qcow2", path: store.pathOf(first.id) },
      { id: DIGEST, format: "raw", path: join(root, "base.raw") },
    ]);
    assert.deepEqual(again.get(first.id), store.get(first.id));
    assert.equal(again.get(first.id).frozen, true);
    assert.equal(again.get(first.id).writer, undefined);
    assert.equal(again.get(second.id).writer, WRITER);
  });

  test("with others on them are read-only and stay", async () => {
    const first = await store.create({ sizeBytes: MIB, writer: WRITER });
    const second = await store.create({ parent: { disk: first.id }, writer: WRITER });
    await store.share(first.id);
    assert.equal(statSync(store.pathOf(first.id)).mode & 0o777, 0o644);
    await store.unshare(first.id);
    assert.equal(statSync(store.pathOf(first.id)).mode & 0o777, 0o600);
    await store.freeze(first.id);
    await store.freeze(first.id);
    assert.equal(statSync(store.pathOf(first.id)).mode & 0o777, 0o444);
    await store.unshare(first.id);
    assert.equal(statSync(store.pathOf(first.id)).mode & 0o777, 0o444, "a frozen one is not taken back");
    await assert.rejects(store.remove(first.id), codeIs("has-children"));
    assert.ok(existsSync(store.pathOf(first.id)));
    await store.remove(second.id);
    await store.remove(first.id);
    assert.deepEqual(readdirSync(store.directory), []);
    await assert.rejects(store.remove(first.id), codeIs("no-such-disk"));
  });

  test("go when nobody needs them, from the top, and let go of their base disk", async () => {
    const base = await store.create({ parent: { image: DIGEST }, writer: WRITER });
    const left = await store.create({ parent: { disk: base.id }, writer: WRITER });
    const right = await store.create({ parent: { disk: base.id }, writer: WRITER });
    const none = () => false;
    assert.deepEqual(await store.removeUnused([left.id, "not-there"], none), [left.id]);
    assert.equal(held, 1);
    assert.deepEqual(await store.removeUnused([right.id], ({ id }) => id === right.id), []);
    await store.freeze(base.id);
    assert.deepEqual(await store.removeUnused([right.id], none), [right.id, base.id]);
    assert.equal(held, 0);
    assert.deepEqual(readdirSync(store.directory), []);
  });

  test("that are written stay when what was put over them goes", async () => {
    const written = await store.create({ sizeBytes: MIB, writer: WRITER });
    const overlay = await store.create({ parent: { disk: written.id }, writer: WRITER });
    assert.deepEqual(await store.removeUnused([overlay.id], () => false), [overlay.id]);
    assert.deepEqual(store.list(), [written]);
    assert.deepEqual(await store.removeUnused([written.id], () => false), [written.id]);
  });

  test("cannot be put on top of each other without end", async () => {
    let top = await store.create({ parent: { image: DIGEST }, writer: WRITER });
    for (let layers = 2; layers < MAX_CHAIN_DISKS; layers += 1)
      top = await store.create({ parent: { disk: top.id }, writer: WRITER });
    assert.equal(store.chainOf(top.id).length, MAX_CHAIN_DISKS);
    await assert.rejects(store.create({ parent: { disk: top.id }, writer: WRITER }), codeIs("too-deep"));
  });

  test("that cannot be read are left as they are and named", async () => {
    const damaged = await store.create({ sizeBytes: MIB, writer: WRITER });
    const lost = await store.create({ parent: { image: DIGEST }, writer: WRITER });
    writeFileSync(join(store.directory, damaged.id, "disk.json"), "{");
    const path = join(store.directory, lost.id, "disk.json");
    writeFileSync(path, JSON.stringify({ ...lost, parent: { image: "cd".repeat(32) } }));
    const again = await openStore();
    assert.deepEqual(again.list(), []);
    assert.throws(() => again.get(damaged.id), /cannot be read/);
    assert.ok(existsSync(store.pathOf(damaged.id)) && existsSync(store.pathOf(lost.id)));
  });

  const HOLDER = { kind: "certificate" as const, name: "CN=b" };
  const ARRIVING = { transfer: 7, holder: HOLDER, url: "wss://b:7170", host: "b" };

  test("come from another host under the name they have there, and are read elsewhere until their file is here", async () => {
    const id = "99999999-2222-4333-8444-555555555555";
    await store.expect({ id, sizeBytes: 64 * MIB, parent: { image: DIGEST }, arriving: ARRIVING });
    const top = await store.create({ parent: { disk: id }, writer: WRITER });
    const socketsOf = () => store.chainOf(top.id).map(({ socket }) => socket);
    assert.deepEqual(socketsOf(), [undefined, store.socketOf(id), undefined]);
    store = await openStore();
    assert.deepEqual(socketsOf(), [undefined, store.socketOf(id), undefined]);
    mkdirSync(store.fillingOf(id));
    writeFileSync(join(store.fillingOf(id), "disk.raw"), emptyQcow2(64 * MIB));
    await store.arrived(id, join(store.fillingOf(id), "disk.raw"));
    assert.deepEqual(socketsOf(), [undefined, undefined, undefined]);
    assert.equal(statSync(store.pathOf(id)).mode & 0o777, 0o444);
    // It may still be read the other way, whoever comes next.
    store = await openStore();
    assert.deepEqual(store.get(id).arriving, ARRIVING);
    await store.settle(id);
    assert.ok(!existsSync(store.fillingOf(id)));
    store = await openStore();
    assert.equal(store.get(id).arriving, undefined);
    assert.deepEqual(socketsOf(), [undefined, undefined, undefined]);
  });

  test("stay while another host reads them, also when the agent is another one", async () => {
    const { id } = await store.create({ sizeBytes: MIB, writer: WRITER });
    const loan = { transfer: 7, holder: HOLDER };
    const other = { transfer: 7, holder: { ...HOLDER, name: "CN=c" } };
    await store.freeze(id);
    await store.lend(id, loan);
    await store.lend(id, other);
    store = await openStore();
    assert.ok(store.isLent(id, loan) && !store.isLent(id, { ...loan, transfer: 8 }));
    assert.deepEqual(await store.removeUnused([id], () => false), []);
    await store.takeBack(id, { ...loan, transfer: 8 });
    await store.takeBack(id, loan);
    assert.deepEqual(await store.removeUnused([id], () => false), []);
    await store.takeBack(id, other);
    assert.deepEqual(await store.removeUnused([id], () => false), [id]);
  });
});
