import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog, type Identity } from "../../../src/base/index.js";
import { OpenedBefore } from "../../../src/agent/disks/arriving-layer.js";
import { BlockGrants } from "../../../src/agent/blocks/block-grants.js";
import { LayerLoans } from "../../../src/agent/disks/layer-loans.js";
import { DiskStore, emptyQcow2 } from "../../../src/disk/index.js";
import { FramePair } from "../../support/frame-pair.js";
import { ArraySource } from "../../support/block-sources.js";

const MIB = 1024 * 1024;
const WRITER = "11111111-2222-4333-8444-555555555555";
const TOKEN = "t".repeat(32);
const peer = (name: string): Identity => ({ kind: "certificate", name, roles: ["peer"] });

describe("frozen disks that other hosts read", () => {
  let root: string;
  let store: DiskStore;
  let grants: BlockGrants;
  let loans: LayerLoans;
  const returned: string[] = [];
  const images = { hold: () => Promise.reject(new Error("no disk here has a base disk")) };

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "rl-"));
    store = await DiskStore.open({ directory: root, images, clock: realClock, log: silentLog });
    grants = new BlockGrants({ clock: realClock, log: silentLog });
    const onReturned = async (disk: string) => void returned.push(disk);
    loans = new LayerLoans({ store, grants, onReturned, log: silentLog });
  });
  after(() => {
    grants.close();
    rmSync(root, { recursive: true });
  });

  test("are read by who was offered them, once they are frozen, and by nobody else", async () => {
    const { id: disk } = await store.create({ sizeBytes: MIB, writer: WRITER });
    const { id: another } = await store.create({ sizeBytes: MIB, writer: WRITER });
    const asked = { transfer: 7, disk, token: TOKEN };
    const refused = { code: "no-such-transfer" };
    await assert.rejects(loans.open(asked, peer("b")), refused);
    const end = loans.offer(7, { token: TOKEN, layers: new Set([disk]), noted: () => Promise.resolve() });
    await assert.rejects(loans.open(asked, peer("b")), { code: "not-ready" });
    await store.freeze(disk);
    await assert.rejects(loans.open({ ...asked, token: "u".repeat(32) }, peer("b")), refused);
    await assert.rejects(loans.open({ transfer: 7, disk }, peer("b")), refused);
    await assert.rejects(loans.open({ ...asked, disk: another }, peer("b")), refused);
    const first = await loans.open(asked, peer("b"));
    assert.equal(first.sizeBytes, emptyQcow2(MIB).length);
    end();
    const again = await loans.open({ transfer: 7, disk }, peer("b"));
    assert.notEqual(again.grant, first.grant);
    assert.deepEqual([...grants.sentBytes.keys()], [again.grant], "the grant before has ended");
    await assert.rejects(loans.open(asked, peer("c")), refused);
    await loans.takeBack({ transfer: 7, disk }, peer("c"));
    assert.deepEqual(returned, []);
    await loans.takeBack({ transfer: 7, disk }, peer("b"));
    assert.deepEqual([returned, grants.sentBytes.size], [[disk], 0]);
    await assert.rejects(loans.open(asked, peer("b")), refused);
  });

  test("are listed, and taken from a host that is gone for good", async () => {
    const { id: disk } = await store.create({ sizeBytes: MIB, writer: WRITER });
    await store.freeze(disk);
    const end = loans.offer(9, { token: TOKEN, layers: new Set([disk]), noted: () => Promise.resolve() });
    await loans.open({ transfer: 9, disk, token: TOKEN }, peer("b"));
    end();
    const granted = grants.sentBytes.size;
    assert.deepEqual(loans.list(), [{ disk, transfer: 9, host: "b" }]);
    await assert.rejects(loans.release("c", { force: true }), { code: "no-such-peer" });
    returned.length = 0;
    assert.deepEqual(await loans.release("b", { force: false }), [{ disk, transfer: 9, host: "b" }]);
    assert.deepEqual([loans.list(), returned, store.get(disk).lent], [[], [disk], undefined]);
    assert.equal(grants.sentBytes.size, granted - 1, "what it reads it is not given any more");
    await assert.rejects(loans.open({ transfer: 9, disk }, peer("b")), { code: "no-such-transfer" });
  });

  test("are not taken from a host that reads them, unless by force", async () => {
    const { id: disk } = await store.create({ sizeBytes: MIB, writer: WRITER });
    await store.freeze(disk);
    const end = loans.offer(11, { token: TOKEN, layers: new Set([disk]), noted: () => Promise.resolve() });
    const open = () => loans.open({ transfer: 11, disk, token: TOKEN }, peer("b"));
    const dial = ({ grant, token }: { grant: number; token: string }) => {
      const pair = new FramePair();
      grants.routes.find(peer("b"), grant, token).acceptLane("block-bulk", 1, pair.right, { lz4: false });
      return pair;
    };
    const lane = dial(await open());
    const inUse = { code: "in-use", message: /b reads one of the disks .* --force/ };
    await assert.rejects(loans.release("b", { force: false }), inUse);
    assert.equal(loans.list().length, 1, "nothing was taken");
    lane.cut();
    assert.equal((await loans.release("b", { force: false })).length, 1, "nobody answers there any more");
    dial(await open());
    assert.equal((await loans.release("b", { force: true })).length, 1);
    assert.deepEqual(loans.list(), []);
    end();
  });

  test("show an empty file of their size until the instant, and then what they are", async () => {
    const opened = new OpenedBefore(MIB);
    const empty = emptyQcow2(MIB);
    assert.deepEqual(await opened.read(0, empty.length), empty);
    assert.deepEqual(await opened.read(empty.length - 4, 8), Buffer.concat([empty.subarray(-4)], 8));
    assert.deepEqual(await opened.read(opened.sizeBytes - 8, 8), Buffer.alloc(8));
    opened.content = new ArraySource(Buffer.from("frozen!!"));
    assert.deepEqual(await opened.read(0, 8), Buffer.from("frozen!!"));
    assert.deepEqual(await opened.read(6, 4), Buffer.from([0x21, 0x21, 0, 0]));
    assert.deepEqual(await opened.read(100, 4), Buffer.alloc(4));
  });
});
