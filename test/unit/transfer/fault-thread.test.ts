import assert from "node:assert/strict";
import { test } from "node:test";
import { Bitmap, PAGE_BYTES, realClock, SharedBits } from "../../../src/base/index.js";
import {
  FaultServer,
  Gate,
  RequestServer,
  type FrameLane,
  type TakenPage,
} from "../../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../../../src/wire/index.js";

const PAGES = 64;
const TRANSFER = 7;

/** One side's lane, whose other side is the test: what it is sent, and what it sends. */
function laneOf(): { lane: FrameLane; sent: Frame[]; arrives(frame: Frame): void } {
  const sent: Frame[] = [];
  let onFrame: (bytes: Uint8Array) => void = () => {};
  let sequence = 0;
  const lane: FrameLane = {
    queuedBytes: 0,
    send: (bytes) => {
      const at = { transfer: TRANSFER, sequence: sent.length + 1, pageCount: PAGES };
      sent.push(decodeFrame(Uint8Array.from(bytes), at));
    },
    attach: (handlers) => (onFrame = handlers.onFrame),
    close: () => {},
  };
  const arrives = (frame: Frame): void =>
    onFrame(encodeFrame(frame, { transfer: TRANSFER, sequence: (sequence += 1) }));
  return { lane, sent, arrives };
}

/** A parent's side: memory in which page 3 is let go of to be written while it is read. */
function answering(readPage: (page: number, held: Bitmap) => void = () => {}) {
  const held = new Bitmap(PAGES, { shared: true });
  const owed = new Bitmap(PAGES, { shared: true });
  held.fill();
  owed.fill();
  const gate = new Gate();
  gate.open = true;
  const { lane, sent, arrives } = laneOf();
  const told: { answered: number[]; passedOn: Frame[] } = { answered: [], passedOn: [] };
  const server = new RequestServer({
    transfer: TRANSFER,
    pageCount: PAGES,
    lane,
    share: { gate: gate.buffer, owed: owed.sharedBuffer, held: held.sharedBuffer },
    read: (page, into) => {
      into.fill(page);
      readPage(page, held);
    },
    tell: {
      answered: (pages) => void told.answered.push(...pages),
      passedOn: (frame) => void told.passedOn.push(frame),
      ended: () => {},
    },
  });
  server.attach();
  const ask = (...pages: number[]): void => arrives({ kind: "request", pages });
  return { gate, held, owed, sent, told, ask };
}

test("requests are answered from memory, one frame for each page", () => {
  const { sent, told, ask } = answering();
  ask(1, 2);
  assert.deepEqual(told, { answered: [1, 2], passedOn: [] });
  const bytes = sent.map((frame) => frame.kind === "pages" && Uint8Array.from(frame.runs[0]?.data ?? []));
  assert.deepEqual(
    bytes,
    [1, 2].map((page) => new Uint8Array(PAGE_BYTES).fill(page)),
  );
});

test("a page whose writer was let through while it was read is not sent, and left to the session", () => {
  const { sent, told, ask } = answering((page, held) => void (page === 3 && held.clear(3)));
  ask(3, 4);
  assert.deepEqual(told, { answered: [4], passedOn: [{ kind: "request", pages: [3] }] });
  assert.equal(sent.length, 1);
});

test("what is not owed, what was written and what is asked too early is left to the session", () => {
  const { gate, held, owed, sent, told, ask } = answering();
  held.clear(1);
  owed.clear(2);
  ask(1, 2);
  gate.open = false;
  ask(3);
  const passedOn = [
    { kind: "request", pages: [1, 2] },
    { kind: "request", pages: [3] },
  ];
  assert.deepEqual([told, sent], [{ answered: [], passedOn }, []]);
});

/** A child's side, without a machine: the test is it. */
function serving() {
  const received = new Bitmap(PAGES, { shared: true });
  const installed = new Bitmap(PAGES, { shared: true });
  const requested = SharedBits.make(PAGES);
  const gate = new Gate();
  const share = {
    gate: gate.buffer,
    received: received.sharedBuffer,
    installed: installed.sharedBuffer,
    requested: requested.buffer,
  };
  const memory = new Map<number, number>();
  const woken: number[] = [];
  const taken: TakenPage[] = [];
  let touch: (pages: readonly number[]) => void = () => {};
  const server = new FaultServer({
    transfer: TRANSFER,
    share,
    memory: {
      pageCount: PAGES,
      fill: (onFaults) => (touch = onFaults),
      install: (page, bytes) => void memory.set(page, bytes[0] ?? 0),
      installZero: ({ first }) => void memory.set(first, 0),
      wake: ({ first }) => void woken.push(first),
    },
    notes: undefined,
    clock: realClock,
    onTaken: (pages) => void taken.push(...pages),
  });
  server.start((error) => assert.fail(String(error)));
  const { lane, sent, arrives } = laneOf();
  const tell = { passedOn: () => {}, counted: () => {}, ended: () => {} };
  const link = (): void => server.begin(server.channelOf(lane, tell, (error) => assert.fail(String(error))));
  const gives = (page: number): void =>
    arrives({
      kind: "pages",
      runs: [
        {
          firstPage: page,
          pageCount: 1,
          encoding: "raw",
          origin: "fault",
          data: new Uint8Array(PAGE_BYTES).fill(page),
        },
      ],
    });
  return {
    gate,
    received,
    installed,
    requested,
    memory,
    woken,
    taken,
    sent,
    server,
    link,
    gives,
    touch: (...pages: number[]) => touch(pages),
  };
}

test("a touch is asked for once, also when there was no lane yet, and what comes is installed and told", () => {
  const child = serving();
  child.touch(5);
  child.link();
  child.touch(5, 6);
  const asked = child.sent.map((frame) => frame.kind === "request" && frame.pages);
  assert.deepEqual(asked, [[5], [6]]);
  assert.equal(child.gate.waiting, 2);
  child.gives(5);
  assert.deepEqual([child.memory.get(5), child.gate.waiting, child.requested.has(5)], [5, 1, false]);
  assert.deepEqual(
    child.taken.map(({ page, by, zero, bytes }) => ({ page, by, zero, bytes })),
    [{ page: 5, by: "answer", zero: false, bytes: undefined }],
  );
  child.touch(5);
  assert.deepEqual(child.woken, [5], "a page that is there is waited for by nobody");
});

test("a page the machine has, or knows to be zero, is not asked for", () => {
  const child = serving();
  child.link();
  child.installed.set(1);
  child.received.set(1);
  child.received.set(2);
  child.touch(1, 2);
  assert.deepEqual([child.sent, child.woken, [...child.memory]], [[], [1], [[2, 0]]]);
  assert.equal(child.taken[0]?.by, "known");
});

test("a page that came another way is not waited for any more, and a late answer changes nothing of it", () => {
  const child = serving();
  child.link();
  child.touch(9);
  child.server.settled([9]);
  assert.equal(child.gate.waiting, 0);
  child.gives(9);
  child.memory.set(9, 77);
  child.gives(9);
  assert.equal(child.memory.get(9), 77);
});

test("content is told where it is wanted", () => {
  const child = serving();
  child.link();
  child.gate.wantsContent = true;
  child.gives(4);
  assert.deepEqual(child.taken[0]?.bytes, new Uint8Array(PAGE_BYTES).fill(4));
});

test("what was stopped installs nothing", () => {
  const child = serving();
  child.link();
  child.server.stop();
  child.touch(1);
  child.gives(2);
  assert.deepEqual([child.sent, [...child.memory]], [[], []]);
});
