import assert from "node:assert/strict";
import { test } from "node:test";
import { BULK_WINDOW_BYTES, SeededRandom, silentLog, type Holder } from "../../../src/base/index.js";
import { BlockGrants } from "../../../src/agent/blocks/block-grants.js";
import { RemoteBlocks } from "../../../src/agent/blocks/remote-blocks.js";
import type { BlockPurpose } from "../../../src/agent/blocks/block-supply.js";
import { DiskError, type BlockSource } from "../../../src/disk/index.js";
import { LaneError } from "../../../src/lane/index.js";
import { decodeBlockFrame, encodeBlockFrame, type BlockFrame } from "../../../src/wire/index.js";
import { ArraySource, sampleDisk } from "../../support/block-sources.js";
import { FramePair } from "../../support/frame-pair.js";
import { ManualClock } from "../../support/lane-clock.js";
import { settle, until } from "../../support/lane-pair.js";

const reader: Holder = { kind: "certificate", name: "CN=reader" };
const asReader = { ...reader, roles: ["peer"] as const };

/** A source and a reader, and the lanes between them. */
class Field {
  readonly clock = new ManualClock();
  readonly grants = new BlockGrants({ clock: this.clock, log: silentLog });
  readonly disks: ArraySource[];
  readonly grant: { grant: number; token: string };
  readonly lanes: { purpose: BlockPurpose; epoch: number; pair: FramePair }[] = [];
  readonly remote: RemoteBlocks;
  ended = 0;
  /** What dialling meets; undefined: it is let in. */
  obstacle: LaneError | undefined;

  constructor(disks: Buffer[] = [sampleDisk(500), Buffer.from("another disk")]) {
    this.disks = disks.map((bytes) => new ArraySource(bytes));
    this.grant = this.grants.open({ holder: reader, disks: this.disks, onEnd: () => (this.ended += 1) });
    this.remote = new RemoteBlocks({
      grant: this.grant.grant,
      sizes: disks.map(({ length }) => length),
      dial: (purpose, epoch) => this.#dial(purpose, epoch),
      clock: this.clock,
    });
  }

  lane(purpose: BlockPurpose): FramePair {
    const lane = this.lanes.findLast((one) => one.purpose === purpose);
    assert.ok(lane !== undefined);
    return lane.pair;
  }

  close(): void {
    this.remote.close();
    this.grants.close();
    assert.equal(this.ended, 1, "what the grant held was let go");
  }

  #dial(purpose: BlockPurpose, epoch: number): Promise<FramePair["left"]> {
    if (this.obstacle !== undefined) return Promise.reject(this.obstacle);
    const pair = new FramePair();
    const { grant, token } = this.grant;
    try {
      this.grants.routes.find(asReader, grant, token).acceptLane(purpose, epoch, pair.right, { lz4: true });
    } catch (error) {
      return Promise.reject(error);
    }
    this.lanes.push({ purpose, epoch, pair });
    return Promise.resolve(pair.left);
  }
}

function framesOf(bytes: readonly Buffer[], grant: number, sizes: number[]): BlockFrame[] {
  return bytes.map((frame, index) =>
    decodeBlockFrame(frame, { transfer: grant, sequence: index + 1, sizes }),
  );
}

/** As many bytes as there are, in pieces of any size. */
async function readAll(source: BlockSource): Promise<Buffer> {
  const random = new SeededRandom(9);
  const reads: Promise<Buffer>[] = [];
  for (let at = 0; at < source.sizeBytes;) {
    const length = Math.min(1 + random.below(700_000), source.sizeBytes - at);
    reads.push(source.read(at, length));
    at += length;
  }
  return Buffer.concat(await Promise.all(reads));
}

test("both lanes give the disks of the grant", async () => {
  const field = new Field();
  for (const [index, disk] of field.disks.entries()) {
    const { urgent, bulk } = field.remote.disk(index);
    assert.ok((await readAll(urgent)).equals(disk.bytes));
    assert.ok((await readAll(bulk)).equals(disk.bytes));
    const extents = await bulk.extents(0, disk.sizeBytes);
    assert.deepEqual(extents, await disk.extents(0, disk.sizeBytes));
  }
  assert.ok(field.remote.receivedBytes > 0);
  field.close();
});

test("what is asked for urgently does not wait for bulk", async () => {
  const field = new Field();
  let letThrough: () => void = () => {};
  const held = new Promise<void>((resolve) => (letThrough = resolve));
  const { urgent, bulk } = field.remote.disk(0);
  const disk = field.disks[0] as ArraySource;
  disk.before = (offset) => (offset === 0 ? held : Promise.resolve());
  const slow = bulk.read(0, 4096);
  assert.ok((await urgent.read(4096, 4096)).equals(disk.bytes.subarray(4096, 8192)));
  letThrough();
  assert.ok((await slow).equals(disk.bytes.subarray(0, 4096)));
  field.close();
});

test("bulk asks for no more than its window, and for the rest as it is answered", async () => {
  const size = 12 * 1024 * 1024;
  const field = new Field([Buffer.alloc(size, 7)]);
  const disk = field.disks[0] as ArraySource;
  let letThrough: () => void = () => {};
  const held = new Promise<void>((resolve) => (letThrough = resolve));
  disk.before = () => held;
  const all = readAll(field.remote.disk(0).bulk);
  await until("the window is used", () => disk.reads.length >= 8);
  await settle();
  const asked = disk.reads.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  assert.ok(asked <= BULK_WINDOW_BYTES, `${asked} bytes were asked for`);
  letThrough();
  assert.equal((await all).length, size);
  field.close();
});

test("when a lane is lost, what was not answered is asked again on the next, and nothing is lost or mixed up", async () => {
  const field = new Field();
  const disk = field.disks[0] as ArraySource;
  let cuts = 0;
  disk.before = () => {
    if (disk.reads.length % 3 === 2 && cuts < 6) {
      cuts += 1;
      field.lane("block-bulk").cut();
      setImmediate(() => field.clock.advance(10_000));
    }
    return Promise.resolve();
  };
  assert.ok((await readAll(field.remote.disk(0).bulk)).equals(disk.bytes));
  assert.ok(cuts >= 2);
  const epochs = field.lanes.filter(({ purpose }) => purpose === "block-bulk").map(({ epoch }) => epoch);
  assert.deepEqual(
    epochs,
    epochs.map((_, index) => index + 1),
  );
  assert.equal(
    field.lanes.filter(({ purpose }) => purpose === "block-urgent").length,
    1,
    "the other lane stays",
  );
  field.close();
});

test("a lane that cannot be dialled is dialled again, with longer pauses", async () => {
  const field = new Field();
  await settle();
  field.obstacle = new LaneError("unreachable", "nobody there");
  field.lane("block-urgent").cut();
  const read = field.remote.disk(0).urgent.read(0, 10);
  for (let turn = 0; turn < 5; turn += 1) {
    field.clock.advance(5000);
    await settle();
  }
  field.obstacle = undefined;
  field.clock.advance(5000);
  assert.ok((await read).equals((field.disks[0] as ArraySource).bytes.subarray(0, 10)));
  field.close();
});

test("when the source knows of no grant, reads are refused by name, and its owner is told", async () => {
  const field = new Field();
  await settle();
  let told: DiskError | undefined;
  field.remote.onOver((why) => (told = why));
  field.grants.end(field.grant.grant, { kind: "certificate", name: "CN=somebody else" });
  assert.equal(field.ended, 0, "only the reader gives it back");
  field.grants.end(field.grant.grant, reader);
  assert.equal(field.ended, 1);
  await until("the reader is told", () => told !== undefined);
  assert.equal(told?.code, "source-lost");
  await assert.rejects(field.remote.disk(0).urgent.read(0, 1), { code: "source-lost" });
  field.close();
});

test("only the holder of the grant is let in, with its token", () => {
  const field = new Field();
  const { grant, token } = field.grant;
  const other = { kind: "certificate", name: "CN=other", roles: ["peer"] } as const;
  for (const [who, number, shown] of [
    [other, grant, token],
    [asReader, grant, `${token}x`],
    [asReader, grant, undefined],
    [asReader, grant + 1, token],
  ] as const) {
    assert.throws(() => field.grants.routes.find(who, number, shown), {
      code: "unknown-transfer",
      fatal: true,
    });
  }
  field.close();
});

test("a lane of an epoch that is over is refused, a newer one ends the older", async () => {
  const field = new Field();
  await settle();
  const taker = field.grants.routes.find(asReader, field.grant.grant, field.grant.token);
  const pair = new FramePair();
  assert.throws(() => taker.acceptLane("block-bulk", 1, pair.right, { lz4: false }), { code: "bad-state" });
  taker.acceptLane("block-bulk", 9, pair.right, { lz4: false });
  await settle();
  assert.equal(field.lane("block-bulk").left.ended?.message, "a newer lane has come");
  field.close();
});

test("a grant that nobody reads ends by itself, one that is read does not", async () => {
  const field = new Field();
  await settle();
  field.clock.advance(2_000_000);
  assert.equal(field.ended, 0);
  field.remote.close();
  await settle();
  field.clock.advance(599_000);
  assert.equal(field.ended, 0);
  field.clock.advance(2000);
  assert.equal(field.ended, 1);
  field.grants.close();
  assert.equal(field.ended, 1);
});

test("a disk that cannot be read is told for that request alone", async () => {
  const field = new Field();
  const disk = field.disks[0] as ArraySource;
  const long = `\u001b[2J${"ö".repeat(400)}`;
  disk.before = (offset) =>
    offset === 0 ? Promise.reject(new DiskError("bad-image", long)) : Promise.resolve();
  const { urgent } = field.remote.disk(0);
  await assert.rejects(urgent.read(0, 10), (error: DiskError) => {
    assert.equal(error.code, "source-lost");
    assert.match(error.message, /^the other host says: {2}\[2Jö+$/u);
    return true;
  });
  assert.equal((await urgent.read(4096, 10)).length, 10);
  field.close();
});

/** A lane to a source on which a test says what it wants, right or wrong. */
function openLane(field: Field, purpose: BlockPurpose): { pair: FramePair; say(frame: BlockFrame): void } {
  const pair = new FramePair();
  const { grant, token } = field.grant;
  field.grants.routes.find(asReader, grant, token).acceptLane(purpose, 100, pair.right, { lz4: false });
  pair.left.attach({ onFrame: () => {}, onEnd: () => {} });
  let sequence = 0;
  const say = (frame: BlockFrame): void =>
    pair.left.send(encodeBlockFrame(frame, { transfer: grant, sequence: (sequence += 1) }));
  return { pair, say };
}

const breaches: [string, BlockPurpose, (say: (frame: BlockFrame) => void) => void, string][] = [
  [
    "an answer from a reader",
    "block-bulk",
    (say) => say({ kind: "extents", request: 1, extents: [{ lengthBytes: 1, hole: true }] }),
    "peer-protocol",
  ],
  [
    "a number that is in use",
    "block-urgent",
    (say) => [1, 1].forEach((request) => say({ kind: "read", request, disk: 0, offset: 0, lengthBytes: 1 })),
    "peer-protocol",
  ],
  [
    "more requests than are allowed",
    "block-urgent",
    (say) =>
      Array.from({ length: 65 }, (_, request) =>
        say({ kind: "read", request, disk: 0, offset: 0, lengthBytes: 1 }),
      ),
    "peer-protocol",
  ],
  [
    "more bytes than the window",
    "block-bulk",
    (say) =>
      Array.from({ length: 9 }, (_, request) =>
        say({ kind: "read", request, disk: 0, offset: 0, lengthBytes: 524288 }),
      ),
    "peer-protocol",
  ],
  [
    "a disk that was not granted",
    "block-bulk",
    (say) => say({ kind: "read", request: 1, disk: 2, offset: 0, lengthBytes: 1 }),
    "unknown-disk",
  ],
  [
    "a byte beyond the end",
    "block-bulk",
    (say) => say({ kind: "read", request: 1, disk: 1, offset: 12, lengthBytes: 1 }),
    "block-out-of-range",
  ],
];
for (const [what, purpose, act, code] of breaches) {
  test(`a reader's lane is ended for good for ${what}, and its other one is served`, async () => {
    const field = new Field();
    await settle();
    (field.disks[0] as ArraySource).before = (_offset, asked) =>
      asked === "bytes" ? new Promise(() => {}) : Promise.resolve();
    const { pair, say } = openLane(field, purpose);
    act(say);
    await until("the lane is ended", () => pair.left.ended !== undefined);
    assert.equal(pair.left.ended?.code, code);
    assert.equal(pair.left.ended?.fatal, true);
    const other = field.remote.disk(1)[purpose === "block-bulk" ? "urgent" : "bulk"];
    assert.equal((await other.read(0, 12)).toString(), "another disk");
    field.close();
  });
}

const lies: [string, (request: number) => BlockFrame, string][] = [
  [
    "a request",
    (request) => ({ kind: "read", request, disk: 0, offset: 0, lengthBytes: 1 }),
    "peer-protocol|unknown-disk",
  ],
  [
    "an answer to nothing",
    () => ({ kind: "failed", request: 999, failure: "gone", message: "" }),
    "peer-protocol",
  ],
  [
    "extents where content is due",
    (request) => ({ kind: "extents", request, extents: [{ lengthBytes: 1, hole: true }] }),
    "peer-protocol",
  ],
  [
    "too little content",
    (request) => ({
      kind: "content",
      request,
      runs: [{ encoding: "zero", lengthBytes: 9, data: new Uint8Array(0) }],
    }),
    "bad-run",
  ],
  [
    "too much content",
    (request) => ({
      kind: "content",
      request,
      runs: [{ encoding: "zero", lengthBytes: 11, data: new Uint8Array(0) }],
    }),
    "bad-run",
  ],
  [
    "content that is none",
    (request) => ({
      kind: "content",
      request,
      runs: [{ encoding: "lz4", lengthBytes: 10, data: Buffer.alloc(9, 255) }],
    }),
    "bad-lz4",
  ],
];
for (const [what, lie, code] of lies) {
  test(`a source is left for good for ${what}, and nothing of it is taken`, async () => {
    const pairs: FramePair[] = [];
    const remote = new RemoteBlocks({
      grant: 5,
      sizes: [100],
      dial: () => {
        pairs.push(new FramePair());
        return Promise.resolve((pairs.at(-1) as FramePair).left);
      },
      clock: new ManualClock(),
    });
    await settle();
    const refused = assert.rejects(remote.disk(0).urgent.read(0, 10), { code: "source-lost" });
    const { right, left } = pairs[0] as FramePair;
    await settle();
    const [asked] = framesOf(left.sent, 5, [100]);
    assert.ok(asked !== undefined && asked.kind === "read");
    right.attach({ onFrame: () => {}, onEnd: () => {} });
    right.send(encodeBlockFrame(lie(asked.request), { transfer: 5, sequence: 1 }));
    await refused;
    await settle();
    assert.match(right.ended?.code ?? "", new RegExp(`^(?:${code})$`));
    remote.close();
  });
}
