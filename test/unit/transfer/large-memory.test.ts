import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_HASH_BYTES, SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  ChildMachine,
  Instant,
  PageDigests,
  ParentSession,
  type FrameLane,
} from "../../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../../../src/wire/index.js";
import { SimulatedCopies, SimulatedNotes } from "../../support/simulation/kept.js";
import { contentOf, SimulatedMemory } from "../../support/simulation/memory.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const log = silentLog;

/** A child of an agent that has ended, which has every other page, and the parent's ends of its lanes in the hands of the test. */
async function child(pages: number, missing: number) {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  const notes = new SimulatedNotes(pages);
  for (let page = 0; page < pages; page += 1)
    if (page % missing !== 0) notes.noteZero([{ first: page, count: 1 }]);
  const frames: Frame[] = [];
  const deliver: Record<string, (frame: Frame) => void> = {};
  let queuedBytes = 0;
  const lane = (name: string): FrameLane => {
    let [received, sent] = [0, 0];
    return {
      get queuedBytes() {
        return queuedBytes;
      },
      send: (bytes) =>
        frames.push(decodeFrame(bytes, { transfer: 7, sequence: (received += 1), pageCount: pages })),
      attach: ({ onFrame }) =>
        void (deliver[name] = (frame) => onFrame(encodeFrame(frame, { transfer: 7, sequence: (sent += 1) }))),
      close: () => {},
    };
  };
  const machine = new ChildMachine({
    transfer: 7,
    memory,
    dial: async (name) => Promise.resolve(lane(name)),
    clock,
    log,
    verify: false,
    notes,
    recovered: { epoch: 65_536 },
  });
  machine.start();
  let linked = false;
  void machine.linked.then(() => (linked = true));
  clock.soon(() => {});
  await clock.runUntil(() => linked, 100);
  const haves = () => frames.filter((frame) => frame.kind === "have");
  return { clock, memory, machine, frames, haves, deliver, stuff: (bytes: number) => (queuedBytes = bytes) };
}

test("a child tells of many runs a few frames at a time, and reports only after them", async () => {
  const pages = 100_000;
  const { clock, haves, frames, deliver, machine } = await child(pages, 2);
  assert.equal(haves().length, 8);
  const run = {
    firstPage: 0,
    pageCount: 1,
    encoding: "zero",
    origin: "fault",
    data: new Uint8Array(0),
  } as const;
  deliver["urgent"]?.({ kind: "pages", runs: [run] });
  await clock.runUntil(() => haves().at(-1)?.last === true, 1000);
  assert.equal(haves().length, Math.ceil(pages / 2 / 4096));
  assert.ok(!frames.some((frame) => frame.kind === "received"));
  const told = haves().reduce((sum, { runs }) => sum + runs.length, 0);
  assert.equal(told, pages / 2);
  await clock.runUntil(() => frames.some((frame) => frame.kind === "received"), 1000);
  assert.deepEqual(frames.at(-1), { kind: "received", creditBytes: 0, runs: [{ first: 0, count: 1 }] });
  assert.equal(machine.phase.phase, "paging");
});

test("a child that becomes complete while it still tells what it has says so afterwards", async () => {
  const pages = 80_000;
  const { clock, memory, haves, frames, deliver, machine } = await child(pages, 2);
  const run = {
    firstPage: 0,
    pageCount: pages,
    encoding: "zero",
    origin: "sweep",
    data: new Uint8Array(0),
  } as const;
  deliver["urgent"]?.({ kind: "pages", runs: [run] });
  assert.equal(machine.phase.phase, "complete");
  assert.ok(memory.quiet && haves().at(-1)?.last === false);
  await clock.runUntil(() => frames.at(-1)?.kind === "done", 1000);
  const kinds = frames.map((frame) => frame.kind);
  assert.ok(kinds.indexOf("received") > kinds.lastIndexOf("have"));
  deliver["bulk"]?.({ kind: "done" });
});

test("a child whose network stack lags behind waits before it tells more", async () => {
  const { clock, haves, stuff } = await child(100_000, 2);
  stuff(2 * 1024 * 1024);
  const until = clock.nowUs() + 20_000;
  await clock.runUntil(() => clock.nowUs() > until, 1000);
  assert.equal(haves().length, 8);
  stuff(0);
  await clock.runUntil(() => haves().at(-1)?.last === true, 1000);
});

test("a parent lets go of a large memory in slices, and writers do not wait for theirs", async () => {
  const pages = 30_000;
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  memory.track(() => {});
  memory.protect({ first: 0, count: pages });
  memory.abandon();
  const copies = new SimulatedCopies();
  const instant = Instant.recover({ memory, copies, copyBudgetBytes: 1 << 20, tracking: true, clock, log });
  const options = { instant, clock, log, compress: false, sweep: false };
  const session = new ParentSession({ ...options, transfer: 7 });
  // Somebody else who is owed the last page keeps the instant from being released.
  instant.addReader({ owes: (page) => page === 5, onCopied: () => {}, owedCount: 1, giveUp: () => {} });
  session.conclude();
  const held = () => memory.protectedPages().count;
  assert.ok(held() > 0 && held() < pages, `${held()} pages are still protected after the first slice`);
  let written = false;
  memory.touch(pages - 1, contentOf(pages - 1, 1), () => (written = true));
  await clock.runUntil(() => written && held() === 1, 1000);
  assert.ok(memory.protectedPages().has(5));
});

test("a recovered session answers before it is told what the child has, and takes the child's word for all it has", async () => {
  const pages = 64;
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  for (let page = 0; page < pages; page += 1) memory.place(page, contentOf(page, page + 1));
  const instant = Instant.recover({
    memory,
    copies: new SimulatedCopies(),
    copyBudgetBytes: 1 << 20,
    tracking: false,
    clock,
    log,
  });
  const session = new ParentSession({ transfer: 7, instant, clock, log, compress: false, sweep: true });
  session.begin({});
  const sent: Frame[] = [];
  const deliver: Record<string, (frame: Frame) => void> = {};
  for (const name of ["urgent", "bulk"] as const) {
    let [received, told] = [0, 0];
    session.acceptLane(name, 70_000, {
      queuedBytes: 0,
      send: (bytes) =>
        sent.push(decodeFrame(bytes, { transfer: 7, sequence: (received += 1), pageCount: pages })),
      attach: ({ onFrame }) =>
        void (deliver[name] = (frame) => onFrame(encodeFrame(frame, { transfer: 7, sequence: (told += 1) }))),
      close: () => {},
    });
  }
  deliver["urgent"]?.({ kind: "request", pages: [3] });
  assert.equal(sent.length, 1);
  deliver["bulk"]?.({ kind: "have", last: true, runs: [{ first: 0, count: pages }] });
  deliver["urgent"]?.({ kind: "request", pages: [4] });
  assert.equal(sent.length, 1, "what it said it has it is not given");
  deliver["bulk"]?.({ kind: "done" });
  assert.equal(session.phase.phase, "complete");
  assert.equal(instant.phase, "released");
});

test("differing digests are found wherever they are", () => {
  const pages = 10_000;
  const [left, right] = [new PageDigests(pages), new PageDigests(pages)];
  assert.deepEqual(left.differences(right), []);
  for (const page of [0, 4095, 4096, 9999]) left.setDigests(page, new Uint8Array(PAGE_HASH_BYTES).fill(1));
  assert.deepEqual(left.differences(right), [0, 4095, 4096, 9999]);
});
