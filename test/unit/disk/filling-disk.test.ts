import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { realClock, SeededRandom, type Clock } from "../../../src/base/index.js";
import { ContentBuilder, DiskError, FillingDisk, FillingNotes } from "../../../src/disk/index.js";
import { ArraySource } from "../../support/block-sources.js";
import { findDataByReading as findData } from "../../support/find-data.js";
import { ManualClock } from "../../support/lane-clock.js";

const MIB = 1024 * 1024;
const BLOCK = 64 * 1024;

const root = mkdtempSync(join(tmpdir(), "ramet-filling-"));
after(() => rmSync(root, { recursive: true }));

let made = 0;
const newDirectory = (): string => join(root, `${(made += 1)}`);

/** 3 MiB and a little: data, a MiB of nothing, data with a hole in it. */
function content(): Buffer {
  const bytes = Buffer.alloc(3 * MIB + 1536);
  const random = new SeededRandom(3);
  for (const [from, to] of [
    [0, MIB],
    [2 * MIB, 2.5 * MIB],
    [2.75 * MIB, bytes.length],
  ] as const) {
    for (let at = from; at < to; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  }
  return bytes;
}

async function chunksOf(bytes: Buffer): Promise<Uint8Array> {
  const builder = new ContentBuilder(bytes.length);
  for (let index = 0; index * MIB < bytes.length; index += 1)
    await builder.put(index, bytes.subarray(index * MIB, (index + 1) * MIB));
  return (await builder.finish(realClock)).chunks;
}

async function begin(
  bytes: Buffer,
  options: { directory?: string; clock?: Clock; chunks?: Uint8Array } = {},
): Promise<{ disk: FillingDisk; directory: string; urgent: ArraySource; bulk: ArraySource }> {
  const { directory = newDirectory(), clock = new ManualClock(), chunks } = options;
  await FillingNotes.create(directory, { sizeBytes: bytes.length, chunks });
  return {
    disk: await reopen(directory, clock),
    directory,
    urgent: new ArraySource(bytes),
    bulk: new ArraySource(bytes),
  };
}

async function reopen(directory: string, clock: Clock = new ManualClock()): Promise<FillingDisk> {
  const disk = await FillingDisk.open(directory, { clock, findData });
  assert.ok(disk !== undefined);
  return disk;
}

/** A read that is let through by the test. */
function hold(source: ArraySource): () => void {
  let letThrough: () => void = () => {};
  const held = new Promise<void>((resolve) => (letThrough = resolve));
  source.before = () => held;
  return letThrough;
}

test("it comes whole, checked, with its holes, and holes are not fetched", async () => {
  const bytes = content();
  const { disk, directory, urgent, bulk } = await begin(bytes, { chunks: await chunksOf(bytes) });
  disk.attach({ urgent, bulk });
  await disk.whole;
  assert.equal(disk.state.phase, "whole");
  assert.ok((await disk.read(0, MIB)).equals(bytes.subarray(0, MIB)));
  assert.deepEqual(urgent.reads, []);
  const fetched = bulk.reads.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  assert.ok(fetched <= 1.75 * MIB + 2 * BLOCK, `${fetched} bytes were fetched`);
  await disk.close();
  const file = FillingNotes.contentPath(directory);
  assert.ok(readFileSync(file).equals(bytes));
  assert.ok(statSync(file).blocks * 512 < 2 * MIB, "its holes are holes here");
});

test("what is read before it is here is asked for at once, once, and the sweep goes on behind it", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  const letThrough = hold(bulk);
  disk.attach({ urgent, bulk });
  const at = 2 * MIB + 5000;
  const both = await Promise.all([disk.read(at, 100), disk.read(at + 200, 4096)]);
  assert.ok(both[0].equals(bytes.subarray(at, at + 100)));
  assert.ok(both[1].equals(bytes.subarray(at + 200, at + 200 + 4096)));
  assert.deepEqual(urgent.reads, [{ offset: 2 * MIB, lengthBytes: BLOCK }]);
  const again = await disk.read(at, 100);
  assert.ok(again.equals(both[0]));
  assert.equal(urgent.reads.length, 1);
  letThrough();
  await disk.whole;
  assert.ok(
    bulk.reads.every(({ offset }) => offset !== 2 * MIB),
    "what is here is not fetched again",
  );
  await disk.close();
});

test("reads across what is here and what is not are put together right", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  hold(bulk);
  disk.attach({ urgent, bulk });
  const random = new SeededRandom(11);
  for (let turn = 0; turn < 200; turn += 1) {
    const offset = random.below(bytes.length - 1);
    const length = 1 + random.below(Math.min(bytes.length - offset, 300_000));
    const found = await disk.read(offset, length);
    assert.ok(found.equals(bytes.subarray(offset, offset + length)), `${offset}+${length}`);
  }
  await Promise.race([disk.close(), Promise.resolve()]);
});

test("reads wait until there is a source, and are refused when it is not filled any more", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  const early = disk.read(0, 10);
  disk.attach({ urgent, bulk });
  assert.ok((await early).equals(bytes.subarray(0, 10)));
  await disk.close();
  const other = await begin(bytes);
  const waiting = other.disk.read(0, 10);
  const refused = assert.rejects(waiting, { code: "cancelled" });
  await other.disk.close();
  await refused;
});

test("a crash at any moment loses no more than what was not noted, and nothing is there that is not", async () => {
  const bytes = content();
  const clock = new ManualClock();
  const { disk, directory, urgent, bulk } = await begin(bytes, { clock, chunks: await chunksOf(bytes) });
  hold(bulk);
  disk.attach({ urgent, bulk });
  await disk.read(0, 2 * BLOCK);
  const before = newDirectory();
  cpSync(directory, before, { recursive: true });
  clock.advance(1001);
  const noted = newDirectory();
  for (let turn = 0; turn < 100; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (readFileSync(join(directory, "noted")).some((byte) => byte !== 0)) break;
  }
  cpSync(directory, noted, { recursive: true });
  // What was written and not noted might be anything after a power failure.
  const anything = Buffer.alloc(bytes.length);
  anything.fill(0xee, 0, 2 * BLOCK);
  writeFileSync(FillingNotes.contentPath(before), anything);
  for (const [copy, hereBytes] of [
    [before, 0],
    [noted, MIB],
  ] as const) {
    const next = await reopen(copy);
    assert.equal(next.progress.hereBytes, hereBytes);
    next.attach({ urgent: new ArraySource(bytes), bulk: new ArraySource(bytes) });
    await next.whole;
    await next.close();
    assert.ok(readFileSync(FillingNotes.contentPath(copy)).equals(bytes));
  }
});

test("what was begun and not to the end is not there; what makes no sense is refused", async () => {
  const options = { clock: new ManualClock(), findData };
  assert.equal(await FillingDisk.open(newDirectory(), options), undefined);
  const { disk, directory } = await begin(content());
  await disk.close();
  for (const [name, text] of [
    ["noted", "x"],
    ["filling.json", "{"],
    ["filling.json", '{"version":2}'],
  ] as const) {
    const copy = newDirectory();
    cpSync(directory, copy, { recursive: true });
    writeFileSync(join(copy, name), text);
    await assert.rejects(FillingDisk.open(copy, options), { code: "damaged" });
  }
});

test("content that is not what its digest says is refused by name, and nothing of it is given any more", async () => {
  const bytes = content();
  const chunks = await chunksOf(bytes);
  const wrong = Buffer.from(bytes);
  wrong[2 * MIB + 77] = (wrong[2 * MIB + 77] as number) ^ 1;
  const { disk, directory, urgent } = await begin(bytes, { chunks });
  disk.attach({ urgent, bulk: new ArraySource(wrong) });
  await assert.rejects(disk.whole, { code: "damaged", message: /bytes 2097152 to 3145727/ });
  assert.equal(disk.state.phase, "damaged");
  await assert.rejects(disk.read(0, 10), { code: "damaged" });
  await disk.close();
  const notes = await FillingNotes.open(directory);
  assert.ok(notes !== undefined);
  assert.ok(notes.noted.nextClear(2 * 16) < 3 * 16, "a chunk that is wrong is never noted as whole");
  await notes.close();
});

test("of a chunk that is known, nothing is given before all of it was found right", async () => {
  const bytes = content();
  const wrong = Buffer.from(bytes);
  // Not where it is read.
  wrong[2 * MIB + 900_000] = (wrong[2 * MIB + 900_000] as number) ^ 1;
  const { disk, urgent, bulk } = await begin(bytes, { chunks: await chunksOf(bytes) });
  hold(bulk);
  disk.attach({ urgent, bulk });
  assert.ok((await disk.read(2 * MIB + 70, 10)).equals(bytes.subarray(2 * MIB + 70, 2 * MIB + 80)));
  assert.deepEqual(urgent.reads, [{ offset: 2 * MIB, lengthBytes: MIB }], "all of the chunk was asked for");
  assert.deepEqual(await disk.extents(MIB, MIB), [{ lengthBytes: MIB, hole: false }], "nobody knows yet");
  const other = await begin(bytes, { chunks: await chunksOf(bytes) });
  const stuck = new ArraySource(wrong);
  hold(stuck);
  other.disk.attach({ urgent: new ArraySource(wrong), bulk: stuck });
  await assert.rejects(other.disk.read(2 * MIB, 10), { code: "damaged" });
  await Promise.race([Promise.all([disk.close(), other.disk.close()]), Promise.resolve()]);
});

test("a chunk that came wrong is thrown away, and comes again from the next source while its readers wait", async () => {
  const bytes = content();
  const chunks = await chunksOf(bytes);
  const wrong = Buffer.from(bytes);
  wrong[2 * MIB + 77] = (wrong[2 * MIB + 77] as number) ^ 1;
  const directory = newDirectory();
  await FillingNotes.create(directory, { sizeBytes: bytes.length, chunks });
  const refused: string[] = [];
  const disk = await FillingDisk.open(directory, {
    clock: new ManualClock(),
    findData,
    onDamage: ({ message }) => {
      refused.push(message);
      disk?.detach();
      return true;
    },
  });
  assert.ok(disk !== undefined);
  const bulk = new ArraySource(wrong);
  hold(bulk);
  disk.attach({ urgent: new ArraySource(wrong), bulk });
  const read = disk.read(2 * MIB + 70, 10);
  for (let turn = 0; turn < 500 && refused.length === 0; turn += 1)
    await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(refused.length, 1);
  assert.match(refused[0] ?? "", /bytes 2097152 to 3145727/);
  disk.attach({ urgent: new ArraySource(bytes), bulk: new ArraySource(bytes) });
  assert.ok((await read).equals(bytes.subarray(2 * MIB + 70, 2 * MIB + 80)));
  await disk.whole;
  await disk.close();
  assert.ok(readFileSync(FillingNotes.contentPath(directory)).equals(bytes));
  assert.equal(refused.length, 1);
});

test("what the source before brought last, and is still looked at, is waited for", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes, { chunks: await chunksOf(bytes) });
  disk.attach({ urgent, bulk });
  while (disk.progress.hereBytes < bytes.length) await new Promise((resolve) => setImmediate(resolve));
  disk.attach({ urgent: new ArraySource(bytes), bulk: new ArraySource(bytes) });
  await disk.whole;
  await disk.close();
});

test("content where the digest says there is none is refused, and the reverse", async () => {
  const bytes = content();
  const chunks = await chunksOf(bytes);
  for (const chunk of [0, 1]) {
    const wrong = Buffer.from(bytes);
    if (chunk === 0) wrong.fill(0, 0, MIB);
    else wrong[MIB + 5] = 1;
    const { disk } = await begin(bytes, { chunks });
    disk.attach({ urgent: new ArraySource(wrong), bulk: new ArraySource(wrong) });
    await assert.rejects(disk.whole, { code: "damaged" });
    await disk.close();
  }
});

test("a source that gives up is told, and another one goes on where it was", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  bulk.before = (offset) =>
    offset < 2 * MIB ? Promise.resolve() : Promise.reject(new DiskError("timeout", "the link is gone"));
  disk.attach({ urgent, bulk });
  while (disk.state.phase === "filling") await new Promise((resolve) => setTimeout(resolve, 2));
  assert.deepEqual(disk.state, { phase: "stuck", code: "timeout", message: "the link is gone" });
  const other = new ArraySource(bytes);
  disk.attach({ urgent, bulk: other });
  await disk.whole;
  assert.ok(other.reads.every(({ offset }) => offset >= 2 * MIB));
  assert.ok((await disk.read(0, bytes.length)).equals(bytes));
  await disk.close();
});

test("what a source that is lost has not answered is asked of the next one", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  let lose: (error: Error) => void = () => {};
  urgent.before = () => new Promise((_, reject) => (lose = reject));
  hold(bulk);
  disk.attach({ urgent, bulk });
  const waiting = disk.read(100, 100);
  await new Promise((resolve) => setTimeout(resolve, 10));
  lose(new DiskError("source-lost", "the host is gone"));
  disk.detach();
  const later = disk.read(2 * MIB, 10);
  assert.equal(disk.state.phase, "filling");
  disk.attach({ urgent: new ArraySource(bytes), bulk: new ArraySource(bytes) });
  assert.ok((await waiting).equals(bytes.subarray(100, 200)));
  assert.ok((await later).equals(bytes.subarray(2 * MIB, 2 * MIB + 10)));
  await disk.whole;
  await disk.close();
});

test("it tells where it is known to hold nothing, and takes what it does not know for content", async () => {
  const bytes = content();
  const { disk, urgent, bulk } = await begin(bytes);
  bulk.before = (_offset, asked) => (asked === "extents" ? Promise.resolve() : new Promise(() => {}));
  disk.attach({ urgent, bulk });
  await disk.read(0, 10);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(await disk.extents(0, bytes.length), [{ lengthBytes: BLOCK, hole: false }]);
  assert.deepEqual(await disk.extents(BLOCK, bytes.length - BLOCK), [
    { lengthBytes: MIB - BLOCK, hole: false },
  ]);
  assert.deepEqual(await disk.extents(MIB + 4096, MIB / 2), [{ lengthBytes: MIB / 2, hole: true }]);
});

for (const how of ["read", "known to be a hole"] as const) {
  test(`zeros come in the place of something wrong that came before, where they are ${how}`, async () => {
    const bytes = content();
    const wrong = Buffer.from(bytes);
    // In the MiB of nothing, and in the hole of the one behind it.
    for (const at of [MIB + 5, MIB + 9 * BLOCK, 2.5 * MIB + 1]) wrong[at] = 1;
    const directory = newDirectory();
    const chunks = await chunksOf(bytes);
    await FillingNotes.create(directory, { sizeBytes: bytes.length, chunks });
    const right = new ArraySource(bytes);
    if (how === "read") right.extents = (_, lengthBytes) => Promise.resolve([{ lengthBytes, hole: false }]);
    let refused = 0;
    const onDamage = (): boolean => {
      refused += 1;
      disk?.detach();
      // What was asked of the first one may come, and be refused, after this.
      setImmediate(() => disk?.attach({ urgent: right, bulk: right }));
      return true;
    };
    const disk = await FillingDisk.open(directory, { clock: realClock, findData, onDamage });
    assert.ok(disk !== undefined);
    disk.attach({ urgent: new ArraySource(wrong), bulk: new ArraySource(wrong) });
    const reads = [MIB, 2.5 * MIB].map((at) => disk.read(at, BLOCK));
    for (const read of reads) assert.ok((await read).equals(Buffer.alloc(BLOCK)));
    await disk.whole;
    await disk.close();
    assert.ok(refused > 0);
    assert.ok(readFileSync(FillingNotes.contentPath(directory)).equals(bytes));
  });
}
