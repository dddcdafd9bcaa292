import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  Instant,
  ParentSession,
  TransferError,
  type FrameLane,
  type LaneEnd,
} from "../../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../../../src/wire/index.js";
import { SimulatedCopies } from "../../support/simulation/kept.js";
import { contentOf, SimulatedMemory } from "../../support/simulation/memory.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const pages = 32;

/** A parent that has been frozen, and the child's ends of its lanes in the hands of the test. */
async function parent(options: { begun: boolean; tracking?: boolean } = { begun: true }) {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  for (let page = 0; page < pages; page += 1) memory.place(page, contentOf(page, page + 1));
  const log = silentLog;
  const instant = new Instant({
    memory,
    copies: new SimulatedCopies(),
    copyBudgetBytes: 1 << 20,
    tracking: options.tracking ?? true,
    clock,
    log,
  });
  const session = new ParentSession({ transfer: 7, instant, clock, log, compress: false, sweep: false });
  let armed = false;
  const arming = instant.arm().then(() => (armed = true));
  clock.soon(() => {});
  await clock.runUntil(() => armed, 1000);
  await arming;
  instant.freeze();
  if (options.begun) session.begin({});
  const ends: LaneEnd[] = [];
  const frames: Frame[] = [];
  const sequence = { urgent: 0, bulk: 0 };
  const deliver: Record<string, (bytes: Uint8Array) => void> = {};
  for (const name of ["urgent", "bulk"] as const) {
    let received = 0;
    session.acceptLane(name, 1, {
      queuedBytes: 0,
      send: (bytes) =>
        frames.push(decodeFrame(bytes, { transfer: 7, sequence: (received += 1), pageCount: pages })),
      attach: ({ onFrame }) => (deliver[name] = onFrame),
      close: (end) => ends.push(end),
    });
  }
  const send = (name: "urgent" | "bulk", frame: Frame) =>
    deliver[name]?.(encodeFrame(frame, { transfer: 7, sequence: (sequence[name] += 1) }));
  return { session, send, ends, frames, memory, instant, deliver };
}

function failsWith(message: RegExp, ends: LaneEnd[], session: ParentSession): void {
  assert.equal(session.phase.phase, "failed");
  assert.ok(ends.every((end) => end.fatal) && ends.length === 2, JSON.stringify(ends));
  assert.match(ends[0]?.message ?? "", message);
}

test("a child that reports before it told what it has is refused", async () => {
  const { send, ends, session, memory } = await parent();
  send("bulk", { kind: "received", creditBytes: 0, runs: [] });
  failsWith(/no place on the bulk lane/, ends, session);
  assert.ok(memory.quiet, "the parent's memory is released when its only child is refused");
});

test("credit for bytes that were never sent is refused", async () => {
  const { send, ends, session } = await parent();
  send("bulk", { kind: "have", last: true, runs: [] });
  send("bulk", { kind: "received", creditBytes: 1, runs: [] });
  failsWith(/more than are in flight/, ends, session);
});

test("a child that claims to be done while pages are owed is refused", async () => {
  const { send, ends, session } = await parent();
  send("bulk", { kind: "have", last: true, runs: [] });
  send("bulk", { kind: "done" });
  failsWith(/32 pages are owed/, ends, session);
});

test("requests before the instant are refused", async () => {
  const { send, ends, session } = await parent({ begun: false });
  send("urgent", { kind: "request", pages: [1] });
  failsWith(/before the fork's instant/, ends, session);
});

test("frames on the wrong lane, twice-told lists and replayed frames are refused", async () => {
  const wrongLane = await parent();
  wrongLane.send("urgent", { kind: "have", last: true, runs: [] });
  failsWith(/no place on the urgent lane/, wrongLane.ends, wrongLane.session);
  const twice = await parent();
  twice.send("bulk", { kind: "have", last: true, runs: [] });
  twice.send("bulk", { kind: "have", last: true, runs: [] });
  failsWith(/twice/, twice.ends, twice.session);
  const replay = await parent();
  const request = encodeFrame({ kind: "request", pages: [3] }, { transfer: 7, sequence: 1 });
  replay.deliver["urgent"]?.(request);
  replay.deliver["urgent"]?.(request);
  assert.equal(replay.session.phase.phase, "failed");
  assert.equal(replay.frames.length, 1);
});

test("a request for a page already reported received is passed over, and others are answered", async () => {
  const { send, frames, session } = await parent();
  send("bulk", { kind: "have", last: true, runs: [{ first: 4, count: 1 }] });
  send("urgent", { kind: "request", pages: [4, 5] });
  assert.deepEqual(
    frames.map((frame) => (frame.kind === "pages" ? frame.runs.map((run) => run.firstPage) : frame.kind)),
    [[5]],
  );
  assert.equal(session.phase.phase, "linked");
});

/** Replaces the lanes of a parent by those of another epoch, and returns what tells it what the child has. */
function dialAgain(
  session: ParentSession,
  epoch: number,
): (runs: { first: number; count: number }[]) => void {
  let deliver = (_bytes: Uint8Array): void => {};
  for (const name of ["urgent", "bulk"] as const) {
    session.acceptLane(name, epoch, {
      queuedBytes: 0,
      send: () => {},
      attach: ({ onFrame }) => void (name === "bulk" && (deliver = onFrame)),
      close: () => {},
    });
  }
  return (runs) => deliver(encodeFrame({ kind: "have", last: true, runs }, { transfer: 7, sequence: 1 }));
}

test("a child that takes back a page it reported is given it again, or told that it is not here any more", async () => {
  const migrated = await parent({ begun: true, tracking: false });
  migrated.send("bulk", { kind: "have", last: true, runs: [{ first: 0, count: pages }] });
  assert.equal(migrated.session.owedCount, 0);
  dialAgain(migrated.session, 2)([{ first: 0, count: pages - 1 }]);
  assert.equal(migrated.session.phase.phase, "linked");
  assert.equal(migrated.session.owedCount, 1);

  const forked = await parent();
  forked.send("bulk", { kind: "have", last: true, runs: [{ first: 0, count: 9 }] });
  dialAgain(forked.session, 2)([{ first: 0, count: 8 }]);
  assert.ok(forked.session.phase.phase === "failed");
  assert.match(forked.session.phase.error.message, /lacks page 8, whose content/);
  assert.equal(forked.instant.phase, "released");
});

test("a child that its host knows to be complete is owed nothing more, with lanes or without", async () => {
  const { session, ends, memory } = await parent();
  session.conclude();
  assert.deepEqual(session.phase, { phase: "complete" });
  assert.equal(session.owedCount, 0);
  assert.ok(memory.quiet && ends.every((end) => end.fatal));
  session.fail(new TransferError("cancelled", "too late"));
  assert.deepEqual(session.phase, { phase: "complete" });
});

test("a child that does not read lz4 gets raw pages", async () => {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  for (let page = 0; page < pages; page += 1) memory.place(page, contentOf(page, page + 1));
  const log = silentLog;
  const instant = new Instant({
    memory,
    copies: new SimulatedCopies(),
    copyBudgetBytes: 1 << 20,
    tracking: false,
    clock,
    log,
  });
  const session = new ParentSession({ transfer: 7, instant, clock, log, compress: true, sweep: true });
  await instant.arm();
  instant.freeze();
  session.begin({});
  const encodings = new Set<string>();
  let tellHave = (): void => {};
  for (const name of ["urgent", "bulk"] as const) {
    let received = 0;
    session.acceptLane(name, 1, laneOf(name), { lz4: false });
    function laneOf(lane: string): FrameLane {
      return {
        queuedBytes: 0,
        send(bytes) {
          const frame = decodeFrame(bytes, { transfer: 7, sequence: (received += 1), pageCount: pages });
          if (frame.kind === "pages") for (const run of frame.runs) encodings.add(run.encoding);
        },
        attach({ onFrame }) {
          const have = encodeFrame({ kind: "have", last: true, runs: [] }, { transfer: 7, sequence: 1 });
          if (lane === "bulk") tellHave = () => onFrame(have);
        },
        close: () => {},
      };
    }
  }
  tellHave();
  await clock.runUntil(() => session.progress().sweep === pages, 1000);
  assert.deepEqual([...encodings], ["raw"]);
});

test("a lane of an old epoch is refused, one of a new epoch replaces the old ones", async () => {
  const { session, ends } = await parent();
  const lane = { queuedBytes: 0, send: () => {}, attach: () => {}, close: () => {} };
  assert.throws(() => session.acceptLane("bulk", 1, lane), /epoch/);
  session.acceptLane("bulk", 2, lane);
  assert.equal(ends.length, 2);
  assert.ok(ends.every((end) => !end.fatal));
  assert.throws(() => session.acceptLane("urgent", 1, lane), /epoch/);
});
