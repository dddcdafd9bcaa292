import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SeededRandom, silentLog } from "../../src/base/index.js";
import { NbdServer } from "../../src/disk/index.js";
import { ArraySource, sampleDisk } from "../support/block-sources.js";
import { ManualClock } from "../support/lane-clock.js";
import { clientFlags, clientOption, clientRequest, contextData, goData, RawNbd } from "../support/nbd-raw.js";

const GREETING_BYTES = 18;
const GO = 7;
const READ = 0;
const WRITE = 1;
const DISCONNECT = 2;
const BLOCK_STATUS = 7;
/** GO's answers without structured replies: the export (20 + 12), block sizes (20 + 14), an acknowledgement (20). */
const GO_REPLY_BYTES = 86;

const directory = mkdtempSync(join(tmpdir(), "ramet-nbd-"));
const path = join(directory, "d.sock");
const disk = new ArraySource(sampleDisk(64));
const clock = new ManualClock();
let server: NbdServer;

before(async () => {
  server = await NbdServer.open({ path, source: disk, exportName: "disk", clock, log: silentLog });
});

after(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

/** A client that has agreed on simple replies. */
async function serving(): Promise<RawNbd> {
  const client = await RawNbd.connect(path);
  client.send(Buffer.concat([clientFlags(), clientOption(GO, goData("disk"))]));
  await client.take(GREETING_BYTES + GO_REPLY_BYTES);
  return client;
}

/** The error of a simple reply. */
async function errorOf(client: RawNbd): Promise<number> {
  const reply = await client.take(16);
  assert.equal(reply.readUInt32BE(0), 0x67446698);
  assert.equal(reply.toString("latin1", 8), "cookie 1");
  return reply.readUInt32BE(4);
}

test("only the socket's owner can connect", () => {
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test("a client fed byte by byte is answered like one that sends all at once", async () => {
  const said = Buffer.concat([
    clientFlags(),
    clientOption(GO, goData("disk", [3])),
    clientRequest({ type: WRITE, offset: 0, lengthBytes: 5 }),
    Buffer.from("12345"),
    clientRequest({ type: READ, offset: 4000, lengthBytes: 200 }),
    clientRequest({ type: DISCONNECT, offset: 0, lengthBytes: 0 }),
  ]);
  const answers: Buffer[] = [];
  for (const pieceBytes of [said.length, 1, 7]) {
    const client = await RawNbd.connect(path);
    for (let at = 0; at < said.length; at += pieceBytes) {
      client.send(said.subarray(at, at + pieceBytes));
      await new Promise((resolve) => setImmediate(resolve));
    }
    answers.push(await client.takeAll());
  }
  const [whole, ...pieces] = answers;
  assert.ok(whole !== undefined && whole.length > GREETING_BYTES + GO_REPLY_BYTES);
  for (const piece of pieces) assert.deepEqual(piece, whole);
});

const wrong: [string, Buffer][] = [
  ["flags that are not known", clientFlags(7)],
  ["no fixed new style", clientFlags(2)],
  ["an option without its mark", Buffer.concat([clientFlags(), Buffer.alloc(16)])],
  ["an option of 8193 bytes", Buffer.concat([clientFlags(), optionOf(8193)])],
  ["an option of 4 GiB", Buffer.concat([clientFlags(), optionOf(0xffffffff)])],
  ["another export by EXPORT_NAME", Buffer.concat([clientFlags(), clientOption(1, Buffer.from("other"))])],
  [
    "more options than there is patience for",
    Buffer.concat([clientFlags(), ...Array<Buffer>(65).fill(clientOption(99))]),
  ],
];
for (const [what, bytes] of wrong) {
  test(`a client is left for ${what}`, async () => {
    const client = await RawNbd.connect(path);
    client.send(bytes);
    await client.takeAll();
    assert.ok(client.ended);
  });
}

test("a client is left for a request without its mark, and for a write of more than is looked past", async () => {
  for (const bytes of [
    Buffer.alloc(28, 1),
    clientRequest({ type: WRITE, offset: 0, lengthBytes: 33 << 20 }),
  ]) {
    const client = await serving();
    client.send(bytes);
    assert.equal((await client.takeAll()).length, 0);
  }
});

test("a client that does not get on with agreeing is left, one that is served is not", async () => {
  const slow = await RawNbd.connect(path);
  slow.send(clientFlags());
  await slow.take(GREETING_BYTES);
  const good = await serving();
  clock.advance(10_001);
  await slow.takeAll();
  assert.ok(slow.ended);
  good.send(clientRequest({ type: READ, offset: 0, lengthBytes: 1 }));
  assert.equal(await errorOf(good), 0);
  good.close();
});

const refused: [string, { type: number; offset: number; lengthBytes: number; flags?: number }, number][] = [
  ["a write", { type: WRITE, offset: 0, lengthBytes: 0 }, 1],
  ["a trim", { type: 4, offset: 0, lengthBytes: 4096 }, 1],
  ["zeroes", { type: 6, offset: 0, lengthBytes: 4096 }, 1],
  ["a flush, which was not offered", { type: 3, offset: 0, lengthBytes: 0 }, 22],
  ["an unknown command", { type: 77, offset: 0, lengthBytes: 1 }, 22],
  ["a read of nothing", { type: READ, offset: 0, lengthBytes: 0 }, 22],
  ["a read of more than is allowed", { type: READ, offset: 0, lengthBytes: (1 << 20) + 1 }, 22],
  ["a read across the end", { type: READ, offset: 64 * 4096 - 1, lengthBytes: 2 }, 22],
  ["a read far beyond the end", { type: READ, offset: Number.MAX_SAFE_INTEGER, lengthBytes: 4096 }, 22],
  ["a read with unknown flags", { type: READ, offset: 0, lengthBytes: 1, flags: 0x80 }, 22],
  ["block status that was not agreed on", { type: BLOCK_STATUS, offset: 0, lengthBytes: 4096 }, 22],
];
for (const [what, fields, error] of refused) {
  test(`${what} is refused, and the client is served on`, async () => {
    const client = await serving();
    client.send(clientRequest(fields));
    assert.equal(await errorOf(client), error);
    client.send(clientRequest({ type: READ, offset: 4096, lengthBytes: 3 }));
    assert.equal(await errorOf(client), 0);
    assert.deepEqual(await client.take(3), disk.bytes.subarray(4096, 4099));
    client.close();
  });
}

test("options that are wrong in themselves are refused by name, and negotiation goes on", async () => {
  const cases: [Buffer, number][] = [
    [clientOption(GO, goData("other")), 0x80000006],
    [clientOption(GO, Buffer.alloc(3)), 0x80000003],
    [clientOption(GO, Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0])), 0x80000003],
    [clientOption(GO, Buffer.concat([goData("disk"), Buffer.alloc(1)])), 0x80000003],
    [clientOption(3), 0x80000002],
    [clientOption(5), 0x80000001],
    [clientOption(8, Buffer.alloc(1)), 0x80000003],
    [clientOption(10, contextData("disk", ["base:allocation"])), 0x80000003], // before structured replies
    [clientOption(8), 1],
    [clientOption(10, contextData("other", ["base:allocation"])), 0x80000006],
    [clientOption(10, contextData("disk", ["base:allocation"]).subarray(0, -1)), 0x80000003],
    [clientOption(10, Buffer.concat([contextData("disk", []), Buffer.alloc(4)])), 0x80000003],
    [clientOption(10, contextData("disk", ["qemu:dirty-bitmap:x"])), 1],
  ];
  const client = await RawNbd.connect(path);
  client.send(clientFlags());
  await client.take(GREETING_BYTES);
  for (const [option, reply] of cases) {
    client.send(option);
    const head = await client.take(20);
    assert.equal(head.readUInt32BE(8), option.readUInt32BE(8));
    assert.equal(head.readUInt32BE(12), reply, option.toString("hex"));
    assert.equal(head.readUInt32BE(16), 0);
  }
  client.close();
});

test("whatever a client sends, others are served", async () => {
  const random = new SeededRandom(5);
  const good = Buffer.concat([
    clientFlags(),
    clientOption(8),
    clientOption(10, contextData("disk", ["base:allocation"])),
    clientOption(GO, goData("disk", [3])),
    clientRequest({ type: BLOCK_STATUS, offset: 0, lengthBytes: 64 * 4096 }),
    clientRequest({ type: READ, offset: 0, lengthBytes: 64 * 4096 }),
  ]);
  for (let turn = 0; turn < 300; turn += 1) {
    const bytes = Buffer.from(good);
    for (let change = 0; change <= turn % 4; change += 1)
      bytes[random.below(bytes.length)] = random.below(256);
    const client = await RawNbd.connect(path);
    client.socket.end(bytes);
    client.socket.resume();
    await client.takeAll();
  }
  const client = await serving();
  client.send(clientRequest({ type: READ, offset: 0, lengthBytes: 1 }));
  assert.equal(await errorOf(client), 0);
  client.close();
});

test("a client that reads no answers is not read on, and costs no more than that", async () => {
  const client = await serving();
  client.socket.pause();
  const before = disk.reads.length;
  const request = clientRequest({ type: READ, offset: 0, lengthBytes: 64 * 4096 });
  for (let turn = 0; turn < 500; turn += 1) client.send(request);
  for (let turn = 0; turn < 200; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  // 8 MiB may wait, and what was read in one go with the request that filled it.
  const served = disk.reads.length - before;
  assert.ok(served < 500, `${served} of 500 reads were served to a client that takes none`);
  client.close();
});

/** The head of an option that announces so many bytes. */
function optionOf(lengthBytes: number): Buffer {
  const bytes = clientOption(GO);
  bytes.writeUInt32BE(lengthBytes, 12);
  return bytes;
}
