import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_BYTES, SeededRandom, silentLog } from "../../../src/base/index.js";
import { ChildRelay } from "../../../src/transfer/child-relay.js";
import { TransferError, type FrameLane, type LaneEnd } from "../../../src/transfer/index.js";
import { RelayBranch } from "../../../src/transfer/relay-branch.js";
import { RelayHold } from "../../../src/transfer/relay-hold.js";
import {
  decodeFrame,
  encodeFrame,
  packRun,
  unpackRun,
  type Frame,
  type PageRun,
} from "../../../src/wire/index.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const TRANSFER = 9;
const PAGES = 100_000;
const log = silentLog;
/** Pages of one frame: 64 of them are 256 KiB. */
const RUN = 64;

function runOf(firstPage: number, compress = false): PageRun {
  const bytes = Buffer.alloc(RUN * PAGE_BYTES, `page ${firstPage} `);
  return packRun({ firstPage, origin: "sweep", bytes, compress });
}

/** The other end of a relay's lane: what was sent on it, and how it ended. */
class Other {
  readonly frames: Frame[] = [];
  ended: LaneEnd | undefined;
  #sequence = 0;
  #handlers: { onFrame(frame: Uint8Array): void; onEnd(end: LaneEnd): void } | undefined;

  get lane(): FrameLane {
    return {
      queuedBytes: 0,
      send: (bytes) => {
        const sequence = this.frames.length + 1;
        this.frames.push(decodeFrame(bytes.slice(), { transfer: TRANSFER, sequence, pageCount: PAGES }));
      },
      attach: (handlers) => void (this.#handlers = handlers),
      close: (end) => void (this.ended = end),
    };
  }

  say(frame: Frame): void {
    const at = { transfer: TRANSFER, sequence: (this.#sequence += 1) };
    this.#handlers?.onFrame(encodeFrame(frame, at));
  }

  credit(creditBytes: number): void {
    this.say({ kind: "received", creditBytes, runs: [] });
  }

  lose(): void {
    this.#handlers?.onEnd({ code: "dead", message: "the connection was lost", fatal: false });
  }

  get firstPages(): number[] {
    return this.frames.flatMap((frame) =>
      frame.kind === "pages" ? frame.runs.map((run) => run.firstPage) : [],
    );
  }
}

const FRAME_BYTES = 16 + 4 + 16 + RUN * PAGE_BYTES;

function branchOf(): { branch: RelayBranch; clock: Scheduler; told: { room: number; over: number } } {
  const clock = new Scheduler(new SeededRandom(1));
  const told = { room: 0, over: 0 };
  const branch = new RelayBranch({
    transfer: TRANSFER,
    pageCount: PAGES,
    clock,
    log,
    onRoom: () => void (told.room += 1),
    onOver: () => void (told.over += 1),
  });
  return { branch, clock, told };
}

/** Lets so much time pass. */
async function pass(clock: Scheduler, delayMs: number): Promise<void> {
  let isOver = false;
  clock.after(delayMs, () => void (isOver = true));
  await clock.runUntil(() => isOver, 10_000);
}

test("frames are passed on in order, within the window, whatever becomes of the bytes they came in", () => {
  const { branch } = branchOf();
  const other = new Other();
  const runs = Array.from({ length: 10 }, (_, index) => runOf(index * RUN));
  for (const run of runs.slice(0, 2)) branch.passOn([run]);
  branch.acceptLane(1, other.lane, { lz4: true });
  for (const run of runs.slice(2)) branch.passOn([run]);
  // Whoever has received them uses their place again.
  for (const run of runs) run.data.fill(0xff);
  const before = other.frames.length;
  assert.ok(before > 0 && before < runs.length, `${before} frames fit into the window`);
  for (let sent = 0; sent < other.frames.length; sent += 1) other.credit(FRAME_BYTES);
  assert.deepEqual(
    other.firstPages,
    runs.map(({ firstPage }) => firstPage),
  );
  for (const frame of other.frames) {
    assert.ok(frame.kind === "pages");
    const [run] = frame.runs;
    assert.ok(run !== undefined);
    assert.equal(Buffer.from(unpackRun(run)).subarray(0, 6).toString(), `page ${run.firstPage} `.slice(0, 6));
  }
  assert.deepEqual(branch.counts, { pages: runs.length * RUN, dropped: 0 });
});

test("more than one frame may hold is passed on in several", () => {
  const { branch } = branchOf();
  const other = new Other();
  branch.acceptLane(1, other.lane, { lz4: true });
  const zeros = Array.from({ length: 300 }, (_, index): PageRun => ({
    firstPage: 1000 + 2 * index,
    pageCount: 1,
    encoding: "zero",
    origin: "sweep",
    data: Buffer.alloc(0),
  }));
  const runs = [...Array.from({ length: 5 }, (_, index) => runOf(index * RUN)), ...zeros];
  branch.passOn(runs);
  for (let sent = 0; sent < other.frames.length; sent += 1)
    other.credit(encodeFrame(other.frames[sent] as Frame, { transfer: TRANSFER, sequence: 1 }).length);
  assert.deepEqual(
    other.firstPages,
    runs.map(({ firstPage }) => firstPage),
  );
});

test("a child that takes nothing holds its relay up for a second, and is then left to its parent", async () => {
  const { branch, clock, told } = branchOf();
  const other = new Other();
  branch.acceptLane(1, other.lane, { lz4: true });
  let frames = 0;
  while (!branch.full) branch.passOn([runOf((frames++ % 1000) * RUN)]);
  await pass(clock, 900);
  assert.ok(branch.full);
  await pass(clock, 200);
  assert.ok(!branch.full);
  assert.equal(told.room, 1);
  const { dropped } = branch.counts;
  assert.ok(dropped > 0);
  branch.passOn([runOf(0)]);
  assert.equal(branch.counts.dropped, dropped + RUN, "what comes meanwhile is left out, too");
  for (let sent = other.frames.length; sent > 0; sent -= 1) other.credit(FRAME_BYTES);
  branch.passOn([runOf(RUN)]);
  assert.equal(other.firstPages.at(-1), RUN, "it takes part again");
});

test("what somebody waits for goes ahead of the sweep that waits", () => {
  const { branch } = branchOf();
  const other = new Other();
  const page = (firstPage: number, origin: "fault" | "push"): PageRun =>
    packRun({ firstPage, origin, bytes: Buffer.alloc(PAGE_BYTES, 1), compress: false });
  branch.passOn([runOf(0)]);
  branch.passOn([runOf(RUN)]);
  branch.passOn([page(1000, "fault")]);
  branch.passOn([page(1001, "push")]);
  branch.passOn([runOf(2 * RUN)]);
  branch.acceptLane(1, other.lane, { lz4: true });
  other.credit(2 * (16 + 4 + 16 + PAGE_BYTES));
  for (let sent = 2; sent < other.frames.length; sent += 1) other.credit(FRAME_BYTES);
  assert.deepEqual(other.firstPages, [1000, 1001, 0, RUN, 2 * RUN]);
});

test("what may wait for a child is bounded", () => {
  const { branch } = branchOf();
  for (let frame = 0; frame < 200; frame += 1) branch.passOn([runOf(frame * RUN)]);
  const { dropped } = branch.counts;
  assert.ok((200 * RUN - dropped) * PAGE_BYTES <= 16 * 1024 * 1024);
});

test("a child that does not read lz4 is passed on raw pages", () => {
  const { branch } = branchOf();
  const other = new Other();
  branch.acceptLane(1, other.lane, { lz4: false });
  const runs = [
    runOf(0, true),
    runOf(RUN, true),
    runOf(2 * RUN, true),
    runOf(3 * RUN, true),
    runOf(4 * RUN, true),
  ];
  assert.ok(runs.every(({ encoding }) => encoding === "lz4"));
  // Unpacked, these are longer than a frame may be.
  branch.passOn(runs);
  for (let sent = 0; sent < other.frames.length; sent += 1) other.credit(FRAME_BYTES);
  assert.equal(other.firstPages.length, 5);
  for (const frame of other.frames)
    assert.ok(frame.kind === "pages" && frame.runs.every(({ encoding }) => encoding === "raw"));
});

test("the end is told once all was passed on, and the lane is ended when the child does not", async () => {
  const { branch, clock, told } = branchOf();
  const other = new Other();
  branch.acceptLane(1, other.lane, { lz4: true });
  for (let frame = 0; frame < 4; frame += 1) branch.passOn([runOf(frame * RUN)]);
  branch.finish();
  assert.ok(!other.frames.some(({ kind }) => kind === "done"));
  for (let sent = 0; sent < 4; sent += 1) other.credit(FRAME_BYTES);
  assert.equal(other.frames.at(-1)?.kind, "done");
  assert.equal(told.over, 0);
  await pass(clock, 5100);
  assert.deepEqual([told.over, other.ended?.code], [1, "complete"]);
});

test("a child that never dials ends with the one that was to pass on to it", () => {
  const { branch, told } = branchOf();
  branch.passOn([runOf(0)]);
  branch.finish();
  assert.equal(told.over, 1);
  assert.throws(() => branch.acceptLane(1, new Other().lane, { lz4: true }), TransferError);
});

test("a lost lane may be dialled again, with a higher epoch only", () => {
  const { branch, told } = branchOf();
  const first = new Other();
  branch.acceptLane(1, first.lane, { lz4: true });
  first.lose();
  assert.throws(() => branch.acceptLane(1, new Other().lane, { lz4: true }), TransferError);
  const second = new Other();
  branch.passOn([runOf(0)]);
  branch.acceptLane(2, second.lane, { lz4: true });
  assert.deepEqual(second.firstPages, [0]);
  assert.equal(told.over, 0);
});

for (const [what, frame] of [
  ["claims pages", { kind: "received", creditBytes: 0, runs: [{ first: 0, count: 1 }] }],
  ["credits what was not sent", { kind: "received", creditBytes: 1, runs: [] }],
  ["requests pages", { kind: "request", pages: [1] }],
  ["says that it is done", { kind: "done" }],
] as const) {
  test(`a child that ${what} on a relay's lane loses the lane and nothing else`, () => {
    const { branch, told } = branchOf();
    const other = new Other();
    branch.acceptLane(1, other.lane, { lz4: true });
    other.say(frame as Frame);
    assert.deepEqual([other.ended?.code, other.ended?.fatal, told.over], ["peer-protocol", true, 1]);
  });
}

/** A child that is fed over `other`, and what it was given and told. */
function fedChild() {
  const clock = new Scheduler(new SeededRandom(1));
  const seen = { taken: 0, fed: [] as boolean[], dials: [] as number[], refuse: false };
  const other = new Other();
  const relay = new ChildRelay({
    transfer: TRANSFER,
    pageCount: PAGES,
    clock,
    log,
    take: ({ runs }) => {
      for (const run of runs) seen.taken += unpackRun(run).length / PAGE_BYTES;
    },
    onFed: (fed) => void seen.fed.push(fed),
    onRoom: () => {},
    onPassing: () => {},
  });
  relay.feedFrom(async (epoch) => {
    seen.dials.push(epoch);
    if (seen.refuse) throw new TransferError("link-lost", "the simulated dial failed");
    return Promise.resolve(other.lane);
  });
  return { clock, seen, other, relay };
}

test("what is passed on is taken and credited, and the end of it is told", async () => {
  const { clock, seen, other, relay } = fedChild();
  await pass(clock, 1);
  other.say({ kind: "pages", runs: [runOf(0)] });
  other.say({ kind: "pages", runs: [runOf(RUN, true)] });
  await pass(clock, 1);
  assert.equal(seen.taken, 2 * RUN);
  const credited = other.frames.reduce(
    (sum, frame) => sum + (frame.kind === "received" ? frame.creditBytes : 0),
    0,
  );
  assert.ok(credited > FRAME_BYTES);
  other.say({ kind: "done" });
  assert.deepEqual([seen.fed, relay.fed], [[true, false], false]);
  assert.equal(other.ended?.code, "complete");
});

test("a relay that passes on what does not decode, or says what it may not, feeds nobody any more", async () => {
  const wrong: PageRun = {
    firstPage: 0,
    pageCount: 2,
    encoding: "lz4",
    origin: "sweep",
    data: Buffer.alloc(9, 0xff),
  };
  for (const [frame, code] of [
    [{ kind: "pages", runs: [wrong] }, "bad-lz4"],
    [{ kind: "hashes", firstPage: 0, digests: new Uint8Array(16) }, "peer-protocol"],
    [{ kind: "relayed", on: false }, "peer-protocol"],
  ] as const) {
    const { clock, seen, other } = fedChild();
    await pass(clock, 1);
    other.say(frame as Frame);
    assert.deepEqual([other.ended?.code, seen.fed, seen.dials], [code, [true, false], [1]]);
  }
});

test("a relay's lane that is lost is dialled again a few times, and no more", async () => {
  const { clock, seen, other } = fedChild();
  await pass(clock, 1);
  seen.refuse = true;
  other.lose();
  await pass(clock, 2000);
  assert.deepEqual(seen.dials, [1, 2, 3, 4]);
  assert.deepEqual(seen.fed, [true, false]);
});

test("a relay that cannot be dialled at all is told of, too", async () => {
  const { clock, seen, relay } = fedChild();
  seen.refuse = true;
  relay.feedFrom(() => Promise.reject(Object.assign(new Error("nobody is there"), { fatal: true })));
  assert.equal(relay.fed, undefined);
  await pass(clock, 1);
  assert.deepEqual([seen.fed, relay.fed], [[false], false]);
});

test("while a child it passes on to lags behind, a child gives no credit, and all of it later", async () => {
  const { clock, other, relay } = fedChild();
  await pass(clock, 1);
  const below = new Other();
  relay.passTo(TRANSFER, () => {}).acceptLane(1, below.lane, { lz4: true });
  let frames = 0;
  while (!relay.full) relay.passOn([runOf((frames++ % 1000) * RUN)]);
  other.say({ kind: "pages", runs: [runOf(0)] });
  await pass(clock, 10);
  assert.equal(other.frames.length, 0);
  for (let sent = 0; sent < frames; sent += 1) if (relay.full) below.credit(FRAME_BYTES);
  await pass(clock, 10);
  assert.deepEqual(other.frames, [{ kind: "received", creditBytes: FRAME_BYTES, runs: [] }]);
});

test("a parent holds back for as long as the child's pages become more, and not for two periods in which they do not", async () => {
  const clock = new Scheduler(new SeededRandom(1));
  let [given, released] = [0, 0];
  const hold = new RelayHold({
    clock,
    given: () => given,
    isDue: () => true,
    onRelease: () => void (released += 1),
  });
  hold.hold();
  for (let period = 0; period < 5; period += 1) {
    given += 1;
    await pass(clock, 1990);
    assert.ok(hold.holding);
  }
  await pass(clock, 4100);
  assert.deepEqual([hold.holding, released], [false, 1]);
  hold.hold();
  hold.release();
  assert.equal(released, 2);
});
