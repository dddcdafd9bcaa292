import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  Instant,
  ParentSession,
  PrecopySink,
  PrecopySource,
  type FrameLane,
  type LaneEnd,
} from "../../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../../../src/wire/index.js";
import { SimulatedCopies, SimulatedNotes } from "../../support/simulation/kept.js";
import { contentOf, SimulatedMemory } from "../../support/simulation/memory.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const pages = 8;
const log = silentLog;
const lost: LaneEnd = { code: "dead", message: "the connection was lost at once", fatal: false };

/** A lane that has ended before it is attached to. */
function endedLane(): FrameLane {
  return { queuedBytes: 0, send: () => {}, attach: ({ onEnd }) => onEnd(lost), close: () => {} };
}

function setUp() {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  return { clock, memory, common: { transfer: 7, memory, clock, log } };
}

test("a pre-copy's lane that has ended before it is taken up is dialled again", async () => {
  const { common, clock } = setUp();
  let dials = 0;
  const sink = new PrecopySink({
    ...common,
    notes: new SimulatedNotes(pages),
    verify: false,
    dial: async () => Promise.resolve(((dials += 1), endedLane())),
    onFailed: (error) => assert.fail(error),
  });
  sink.start();
  clock.soon(() => {});
  await clock.runUntil(() => dials === 2, 100);
  assert.equal(sink.progress().linked, false);
  sink.close();
});

test("a pre-copy's parent waits for another lane when the one it takes up has ended", () => {
  const { common } = setUp();
  const source = new PrecopySource({ ...common, compress: false });
  source.acceptLane(1, endedLane());
  assert.equal(source.progress().linked, false);
  source.acceptLane(2, { ...endedLane(), attach: () => {} });
  assert.equal(source.progress().linked, true);
  source.release();
});

test("a request that arrived before its lane was taken up is answered", () => {
  const { common, memory, clock } = setUp();
  for (let page = 0; page < pages; page += 1) memory.place(page, contentOf(page, page + 1));
  const copies = new SimulatedCopies();
  const instant = Instant.recover({ memory, copies, copyBudgetBytes: 4096, tracking: false, clock, log });
  const session = new ParentSession({ ...common, instant, compress: false, sweep: false });
  session.begin({});
  const sent: Frame[] = [];
  session.acceptLane("urgent", 1, {
    queuedBytes: 0,
    send: (bytes) => sent.push(decodeFrame(bytes, { transfer: 7, sequence: 1, pageCount: pages })),
    attach: ({ onFrame }) =>
      onFrame(encodeFrame({ kind: "request", pages: [3] }, { transfer: 7, sequence: 1 })),
    close: () => {},
  });
  assert.deepEqual(
    sent.map((frame) => frame.kind === "pages" && frame.runs[0]?.firstPage),
    [3],
  );
  session.detach();
});
