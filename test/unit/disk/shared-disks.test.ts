import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { realClock, silentLog } from "../../../src/base/index.js";
import { DiskError, DiskStore, markShared, requireShared, sharedDisks } from "../../../src/disk/index.js";

const MIB = 1024 * 1024;
const WRITER = "11111111-2222-4333-8444-555555555555";
const MARK = { host: "22222222-2222-4333-8444-555555555555", token: "33333333-2222-4333-8444-555555555555" };

describe("disks whose files lie where hosts share them", () => {
  let root: string;
  let shared: string;
  let store: DiskStore;
  const images = { hold: () => Promise.reject(new DiskError("no-such-image", "there are none")) };
  const openStore = (name: string) =>
    DiskStore.open({ directory: join(root, name), images, clock: realClock, log: silentLog });
  const own = (id: string) => join(root, "disks", id, "disk.qcow2");
  const elsewhere = (id: string) => join(shared, id, "disk.qcow2");
  const isCode = (code: string) => (error: unknown) => error instanceof DiskError && error.code === code;

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), "rs-"));
    shared = join(root, "shared");
    mkdirSync(shared, { mode: 0o755 });
    store = await openStore("disks");
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  const make = () => store.create({ sizeBytes: MIB, writer: WRITER, sharedAt: shared });

  test("are written there, and are so for the next agent", async () => {
    const { id } = await make();
    assert.deepEqual([existsSync(own(id)), existsSync(elsewhere(id))], [false, true]);
    await store.give(id, process.geteuid?.() ?? 0);
    for (const each of [store, await openStore("disks")]) {
      assert.deepEqual(each.chainOf(id), [{ id, format: "qcow2", path: elsewhere(id), shared: true }]);
      assert.equal(each.get(id).sharedAt, shared);
    }
    await store.remove(id);
    assert.deepEqual([readdirSync(shared), readdirSync(join(root, "disks"))], [[], []]);
  });

  test("leave nothing where they could not be made", async () => {
    rmSync(shared, { recursive: true });
    await assert.rejects(make());
    assert.deepEqual(readdirSync(join(root, "disks")), []);
    assert.deepEqual(store.list(), []);
  });

  test("are brought home in two steps, of which each may be an agent's last", async () => {
    const { id } = await make();
    const content = Buffer.concat([
      readFileSync(elsewhere(id)),
      Buffer.alloc(2 * MIB),
      Buffer.from("the end"),
    ]);
    writeFileSync(elsewhere(id), content);
    await store.freeze(id);
    // As a copy that an agent did not end.
    writeFileSync(`${own(id)}.new`, "half");
    const ended = AbortSignal.abort();
    await assert.rejects(store.shared.bringHome(id, { signal: ended }), isCode("cancelled"));
    assert.deepEqual(store.chainOf(id)[0]?.path, elsewhere(id), "it lies there still");
    const told: number[][] = [];
    await store.shared.bringHome(id, { onProgress: (...progress) => told.push(progress) });
    assert.deepEqual(
      [told[0], told.at(-1)],
      [
        [0, content.length],
        [content.length, content.length],
      ],
    );
    assert.ok(told.length > 3, "it is told of each piece");
    assert.ok(readFileSync(own(id)).equals(content));
    assert.equal(statSync(own(id)).mode & 0o777, 0o444);
    assert.ok(existsSync(elsewhere(id)), "somebody may read it there still");
    const next = await openStore("disks");
    for (const each of [store, next]) {
      assert.deepEqual(each.chainOf(id), [{ id, format: "qcow2", path: own(id) }]);
      await each.shared.bringHome(id);
    }
    await next.shared.settleHome(id);
    assert.deepEqual(readdirSync(shared), []);
    assert.equal(next.get(id).sharedAt, undefined);
    assert.equal((await openStore("disks")).get(id).sharedAt, undefined);
  });

  test("stay there until they are home", async () => {
    const { id } = await make();
    await store.shared.settleHome(id);
    assert.ok(existsSync(elsewhere(id)));
    assert.equal(store.get(id).sharedAt, shared);
  });

  test("are taken by a host that has what they stand on, as they are, and once", async () => {
    const base = await store.create({ sizeBytes: MIB, writer: WRITER });
    await store.freeze(base.id);
    const written = await store.create({ parent: { disk: base.id }, writer: WRITER, sharedAt: shared });
    writeFileSync(join(shared, "notes"), "others may keep other things here");
    const [found, ...more] = await sharedDisks(shared);
    assert.deepEqual(
      [found?.id, found?.writer, found?.parent, more],
      [written.id, WRITER, { disk: base.id }, []],
    );
    const other = await openStore("other");
    const options = {
      id: written.id,
      sizeBytes: MIB,
      file: elsewhere(written.id),
      createdAtMs: 1,
      adoptedFor: WRITER,
    };
    await assert.rejects(
      other.shared.adopt({ ...options, parent: { disk: base.id } }),
      isCode("no-such-disk"),
    );
    assert.deepEqual(readdirSync(join(root, "other")), []);
    const adopted = await other.shared.adopt(options);
    assert.deepEqual([adopted.frozen, adopted.writer, adopted.sharedAt], [true, undefined, undefined]);
    assert.ok(readFileSync(other.pathOf(written.id)).equals(readFileSync(elsewhere(written.id))));
    assert.equal(statSync(other.pathOf(written.id)).mode & 0o777, 0o444);
    const next = await openStore("other");
    assert.deepEqual(next.get(written.id), adopted);
    // Until the guest that wrote it is removed here, it stays: nobody stands on it yet, or whoever was to could not be run.
    const { id: over } = await next.create({ parent: { disk: written.id }, writer: MARK.host });
    const isUnused = () => false;
    assert.deepEqual(await next.removeUnused([over], isUnused), [over]);
    assert.deepEqual(await next.removeUnused([written.id], isUnused), []);
    assert.deepEqual(await next.shared.disown(MARK.host), []);
    assert.deepEqual(await next.shared.disown(WRITER), [written.id]);
    assert.equal((await openStore("other")).get(written.id).adoptedFor, undefined);
    assert.deepEqual(await next.removeUnused([written.id], isUnused), [written.id]);
  });

  test("lie in a directory that both hosts see to be the same", async () => {
    await markShared(shared, MARK);
    await requireShared(shared, MARK);
    const refused: [string, () => Promise<void>][] = [
      ["another host's", () => requireShared(shared, { ...MARK, host: WRITER })],
      ["an earlier agent's", () => requireShared(shared, { ...MARK, token: WRITER })],
      ["not there", () => requireShared(join(root, "none"), MARK)],
      ["not there to be marked", () => markShared(join(root, "none"), MARK)],
    ];
    for (const [what, attempt] of refused) await assert.rejects(attempt, isCode("not-shared"), what);
    chmodSync(shared, 0o750);
    await assert.rejects(requireShared(shared, MARK), isCode("not-shared"));
    await assert.rejects(sharedDisks(join(root, "none")), isCode("not-shared"));
  });
});
