import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, test } from "node:test";
import { BootStore } from "../../../src/agent/store/boot-store.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-boot-"));
after(() => rmSync(scratch, { recursive: true }));

const content = randomBytes(3 * 1024 * 1024 + 17);
const digest = createHash("sha256").update(content).digest("hex");
const source = join(scratch, "vmlinuz");
const directory = join(scratch, "boot");

const refused = (message: RegExp) => ({ name: "AgentError", code: "bad-boot-file", message });

describe("boot store", () => {
  let store: BootStore;
  beforeEach(async () => {
    rmSync(directory, { recursive: true, force: true });
    writeFileSync(source, content);
    store = await BootStore.open(directory);
  });

  test("imports the same content once, also at the same time", async () => {
    const holds = await Promise.all([store.import(source), store.import(source), store.import(source)]);
    assert.deepEqual(
      holds.map((hold) => hold.digest),
      [digest, digest, digest],
    );
    assert.deepEqual(readdirSync(directory), [digest]);
    assert.ok(readFileSync(join(directory, digest)).equals(content));
    assert.equal(await store.sizeBytes(digest), content.length);
  });

  test("keeps what is held or used, removes the rest", async () => {
    const first = await store.import(source);
    const second = await store.import(source);
    assert.deepEqual(await store.collect(new Set()), []);
    first.letGo();
    first.letGo();
    assert.deepEqual(
      await store.collect(new Set()),
      [],
      "the second hold counts, though the first was let go twice",
    );
    second.letGo();
    assert.deepEqual(await store.collect(new Set([digest])), []);
    assert.deepEqual(await store.collect(new Set()), [digest]);
    assert.equal(await store.has(digest), false);
  });

  test("leaves nothing of a copy that a crash cut short", async () => {
    const upload = await store.receive({ sizeBytes: 10 });
    await upload.write(0, Buffer.alloc(5));
    assert.equal(readdirSync(directory).length, 1);
    await BootStore.open(directory);
    await upload.abandon();
    assert.deepEqual(readdirSync(directory), []);
  });

  test("receives a file in pieces and checks its digest", async () => {
    const upload = await store.receive({ sizeBytes: content.length, digest });
    for (let offset = 0; offset < content.length; offset += 1024 * 1024) {
      await upload.write(offset, content.subarray(offset, offset + 1024 * 1024));
    }
    const hold = await upload.finish();
    await upload.abandon();
    assert.ok(readFileSync(hold.path).equals(content));
    assert.ok((await store.read(digest, { offset: 100, maxBytes: 50 })).equals(content.subarray(100, 150)));
  });

  test("refuses other content, gaps, and too little or too much", async () => {
    const other = await store.receive({ sizeBytes: 4, digest });
    await other.write(0, Buffer.from("else"));
    await assert.rejects(other.finish(), refused(/announced as .* has the content of/));
    await other.abandon();
    const gap = await store.receive({ sizeBytes: 8 });
    await assert.rejects(gap.write(4, Buffer.alloc(4)), refused(/4 bytes at 4, where 0 was next/));
    await assert.rejects(gap.write(0, Buffer.alloc(9)), refused(/9 bytes at 0/));
    await assert.rejects(gap.finish(), refused(/ended after 0 of 8 bytes/));
    await gap.abandon();
    await assert.rejects(store.receive({ sizeBytes: 0 }), refused(/1 to \d+ bytes/));
    assert.deepEqual(readdirSync(directory), []);
  });

  test("refuses files that cannot boot anything, and digests that are paths", async () => {
    await assert.rejects(store.import(join(scratch, "none")), refused(/cannot be read: ENOENT/));
    await assert.rejects(store.import(scratch), refused(/not a regular file/));
    writeFileSync(source, "");
    await assert.rejects(store.import(source), refused(/is empty/));
    assert.throws(() => store.path("../../etc/passwd"), refused(/64 hexadecimal digits/));
    await assert.rejects(store.sizeBytes(digest), refused(/no boot file/));
  });
});
