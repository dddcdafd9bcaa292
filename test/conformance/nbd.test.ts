import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { realClock, silentLog } from "../../src/base/index.js";
import { DiskError, NbdServer } from "../../src/disk/index.js";
import { ArraySource, sampleDisk } from "../support/block-sources.js";
import { clientFlags, clientOption, clientRequest, contextData, goData, RawNbd } from "../support/nbd-raw.js";

const run = promisify(execFile);
const DEADLINE = { timeout: 20_000 };
const SIZE_BLOCKS = 256;

const directory = mkdtempSync(join(tmpdir(), "ramet-nbd-"));
const path = join(directory, "d.sock");
const file = join(directory, "same.raw");
const url = `nbd+unix:///?socket=${path}`;
const disk = new ArraySource(sampleDisk(SIZE_BLOCKS));
let server: NbdServer;

before(async () => {
  writeFileSync(file, disk.bytes);
  server = await NbdServer.open({ path, source: disk, clock: realClock, log: silentLog });
});

after(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

test("qemu-img finds the same content", async () => {
  const { stdout } = await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", url, file], DEADLINE);
  assert.match(stdout, /identical/);
});

test("qemu-img converts it to the same bytes", async () => {
  const copy = join(directory, "copy.raw");
  await run("qemu-img", ["convert", "-f", "raw", "-O", "raw", url, copy], DEADLINE);
  assert.ok(readFileSync(copy).equals(disk.bytes));
});

test("qemu-img is told where the holes are", async () => {
  const { stdout } = await run("qemu-img", ["map", "--output=json", "-f", "raw", url], DEADLINE);
  const map = JSON.parse(stdout) as { start: number; length: number; zero: boolean; data: boolean }[];
  const end = map.reduce((at, { start, length, zero, data }) => {
    assert.equal(start, at);
    const empty = disk.bytes.compare(Buffer.alloc(length), 0, length, start, start + length) === 0;
    assert.equal(zero, empty);
    assert.equal(data, !empty);
    return at + length;
  }, 0);
  assert.equal(end, disk.sizeBytes);
  assert.ok(map.length > SIZE_BLOCKS / 2);
});

test("a disk that is not whole sectors is read to its last byte", async () => {
  const odd = new ArraySource(Buffer.concat([sampleDisk(3), Buffer.from("tail")]));
  const oddPath = join(directory, "odd.sock");
  const oddServer = await NbdServer.open({ path: oddPath, source: odd, clock: realClock, log: silentLog });
  const copy = join(directory, "odd.raw");
  await run(
    "qemu-img",
    ["convert", "-f", "raw", "-O", "raw", `nbd+unix:///?socket=${oddPath}`, copy],
    DEADLINE,
  );
  await oddServer.close();
  const found = readFileSync(copy);
  assert.ok(found.subarray(0, odd.sizeBytes).equals(odd.bytes));
  assert.ok(found.subarray(odd.sizeBytes).every((byte) => byte === 0));
});

test("another export's name is refused", async () => {
  await assert.rejects(
    run("qemu-img", ["info", "-f", "raw", `nbd+unix:///other?socket=${path}`], DEADLINE),
    /export 'other' not present|Requested export not available/,
  );
});

test("an emulator writes nothing through it", async () => {
  const write = ["-f", "raw", "-c", "write 0 4k", url];
  await assert.rejects(run("qemu-io", write, DEADLINE), /Permission denied|[Rr]ead-only/);
});

test("a read that waits does not hold up the next one", async () => {
  const client = await RawNbd.connect(path);
  client.send(Buffer.concat([clientFlags(), clientOption(7, goData(""))]));
  await client.take(18 + 86);
  let letThrough = (): void => {};
  const held = new Promise<void>((resolve) => (letThrough = resolve));
  disk.before = (offset) => (offset === 0 ? held : Promise.resolve());
  client.send(clientRequest({ type: 0, offset: 0, lengthBytes: 1, cookie: "slow one" }));
  client.send(clientRequest({ type: 0, offset: 4096, lengthBytes: 1, cookie: "fast one" }));
  assert.equal((await client.take(17)).toString("latin1", 8, 16), "fast one");
  letThrough();
  assert.equal((await client.take(17)).toString("latin1", 8, 16), "slow one");
  disk.before = () => Promise.resolve();
  client.close();
});

test("a source that fails is an input/output error for that read alone, and its reason is told", async () => {
  const client = await RawNbd.connect(path);
  client.send(Buffer.concat([clientFlags(), clientOption(8), clientOption(7, goData(""))]));
  await client.take(18 + 20 + 86);
  disk.before = () => Promise.reject(new DiskError("damaged", "chunk 0 is damaged"));
  client.send(clientRequest({ type: 0, offset: 0, lengthBytes: 1 }));
  const reply = await client.take(20);
  assert.equal(reply.readUInt32BE(0), 0x668e33ef);
  assert.equal(reply.readUInt16BE(6), 0x8001);
  const error = await client.take(reply.readUInt32BE(16));
  assert.equal(error.readUInt32BE(0), 5);
  assert.equal(error.toString("utf8", 6), "chunk 0 is damaged");
  disk.before = () => Promise.resolve();
  client.send(clientRequest({ type: 0, offset: 2 * 4096, lengthBytes: 4096 }));
  const hole = await client.take(20 + 12);
  assert.equal(hole.readUInt16BE(6), 2);
  assert.equal(hole.readUInt32BE(28), 4096);
  client.close();
});

test("a client may ask for one extent, and is told of no more than it asked for", async () => {
  const client = await RawNbd.connect(path);
  const context = contextData("", ["base:allocation"]);
  client.send(
    Buffer.concat([clientFlags(), clientOption(8), clientOption(10, context), clientOption(7, goData(""))]),
  );
  await client.take(18 + 20 + 39 + 20 + 86);
  client.send(clientRequest({ type: 7, offset: 0, lengthBytes: 1 << 20, flags: 8 }));
  const one = await client.take(20 + 12);
  assert.deepEqual([...one.subarray(20)], [0, 0, 0, 1, 0, 0, 0x20, 0, 0, 0, 0, 0]);
  client.send(clientRequest({ type: 7, offset: 0, lengthBytes: 4 * 4096 }));
  const three = await client.take(20 + 28);
  assert.equal(three.readUInt32BE(16), 28);
  assert.equal(three.readUInt32BE(20 + 4 + 8), 4096);
  assert.equal(three.readUInt32BE(20 + 4 + 12), 3);
  client.close();
});

test("a socket that an agent before this one left is replaced, and clients come back", async () => {
  await server.close();
  writeFileSync(path, "");
  server = await NbdServer.open({ path, source: disk, clock: realClock, log: silentLog });
  const { stdout } = await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", url, file], DEADLINE);
  assert.match(stdout, /identical/);
});

test("a socket that cannot be made is an error by name", async () => {
  const nowhere = { path: join(directory, "none", "d.sock"), source: disk, clock: realClock, log: silentLog };
  await assert.rejects(NbdServer.open(nowhere), { code: "bad-socket" });
});
