import assert from "node:assert/strict";
import { test } from "node:test";
import { Bitmap, MAX_UNSEEN_PAGES, PAGE_BYTES, realClock, SharedBits } from "../../../src/base/index.js";
import {
  FaultServer,
  Gate,
  RequestServer,
  type FrameLane,
  type LaneEnd,
  type PageRange,
  type TakenPages,
} from "../../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame, type PageRun } from "../../../src/wire/index.js";

const PAGES = 64;
const TRANSFER = 7;

/** One side's lane, whose other side is the test: what it is sent, and what it sends. */
function laneOf(pageCount = PAGES): {
  lane: FrameLane;
  sent: Frame[];
  ends: LaneEnd[];
  arrives(frame: Frame): void;
} {
  const sent: Frame[] = [];
  const ends: LaneEnd[] = [];
  let onFrame: (bytes: Uint8Array) => void = () => {};
  let sequence = 0;
  const lane: FrameLane = {
    queuedBytes: 0,
    send: (bytes) => {
      const at = { transfer: TRANSFER, sequence: sent.length + 1, pageCount };
      sent.push(decodeFrame(Uint8Array.from(bytes), at));
    },
    attach: (handlers) => (onFrame = handlers.onFrame),
    close: (end) => void ends.push(end),
  };
  const arrives = (frame: Frame): void =>
    onFrame(encodeFrame(frame, { transfer: TRANSFER, sequence: (sequence += 1) }));
  return { lane, sent, ends, arrives };
}

/** A parent's side: memory in which page 3 is let go of to be written while it is read. */
function answering(readPage: (page: number, held: Bitmap) => void = () => {}) {
  const held = new Bitmap(PAGES, { shared: true });
  const owed = new Bitmap(PAGES, { shared: true });
  held.fill();
  owed.fill();
  const sentBefore = new Bitmap(PAGES, { shared: true });
  const gate = new Gate();
  gate.open = true;
  const { lane, sent, arrives } = laneOf();
  const told: { answered: number[]; passedOn: Frame[] } = { answered: [], passedOn: [] };
  const around: PageRange[] = [];
  const server = new RequestServer({
    transfer: TRANSFER,
    pageCount: PAGES,
    lane,
    share: {
      gate: gate.buffer,
      owed: owed.sharedBuffer,
      sent: sentBefore.sharedBuffer,
      held: held.sharedBuffer,
    },
    read: ({ first, count }, into) => {
      for (let page = first; page < first + count; page += 1) {
        into.fill(page, (page - first) * PAGE_BYTES, (page - first + 1) * PAGE_BYTES);
        readPage(page, held);
      }
    },
    tell: {
      answered: (answers) => {
        told.answered.push(...answers.pages);
        around.push(...answers.around);
      },
      passedOn: (frame) => void told.passedOn.push(frame),
      ended: () => {},
    },
  });
  server.attach();
  const ask = (...pages: number[]): void => arrives({ kind: "request", pages });
  return { gate, held, owed, sentBefore, sent, told, around, ask };
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

/** What a frame carries, for each page the byte it is full of. */
function contentOf(frame: Frame | undefined): [number, number | undefined][] {
  assert(frame?.kind === "pages");
  return frame.runs.flatMap(({ firstPage, pageCount, data }) =>
    Array.from({ length: pageCount }, (_, at): [number, number | undefined] => [
      firstPage + at,
      data[at * PAGE_BYTES],
    ]),
  );
}

test("what lies around a page goes behind its answer, once over one lane", () => {
  const { gate, sentBefore, sent, told, around, ask } = answering();
  gate.aroundPages = 4;
  sentBefore.set(7);
  ask(5);
  assert.deepEqual(sent.map(contentOf), [
    [[5, 5]],
    [
      [4, 4],
      [6, 6],
    ],
  ]);
  assert.deepEqual(around, [
    { first: 4, count: 1 },
    { first: 6, count: 1 },
  ]);
  ask(5, 6);
  assert.deepEqual(sent.slice(2).map(contentOf), [[[5, 5]], [[6, 6]]]);
  assert.deepEqual(told.answered, [5, 5, 6]);
});

test("as much goes around the answers to one request as around one answer", () => {
  const { gate, sent, around, ask } = answering();
  gate.aroundPages = 4;
  ask(5, 9, 13);
  assert.deepEqual(sent.map(contentOf).slice(0, 3), [[[5, 5]], [[9, 9]], [[13, 13]]]);
  assert.deepEqual(around, [
    { first: 4, count: 1 },
    { first: 6, count: 2 },
  ]);
  ask(9);
  assert.deepEqual(around.at(-1), { first: 10, count: 2 }, "what was left out goes with the next one");
});

test("nothing goes around an answer that was not changed back into what it was, is not owed, is zero, or lies outside memory", () => {
  const { gate, owed, held, sent, around, ask } = answering((page) => void (page === 18 && held.clear(18)));
  gate.aroundPages = 16;
  owed.clear(20);
  held.clear(21);
  ask(19);
  // 16 to 18 were read together, and 18 was let go of to be written meanwhile.
  assert.deepEqual(around, [{ first: 22, count: 10 }]);
  ask(1);
  assert.deepEqual(contentOf(sent.at(-1))[0], [2, 2], "page 0 is zero");
  assert.equal(around.at(-1)?.first, 2);
});

/** A child's side, without a machine: the test is it. */
function serving(pageCount = PAGES) {
  const received = new Bitmap(pageCount, { shared: true });
  const installed = new Bitmap(pageCount, { shared: true });
  const requested = SharedBits.make(pageCount);
  const gate = new Gate();
  const share = {
    gate: gate.buffer,
    received: received.sharedBuffer,
    installed: installed.sharedBuffer,
    requested: requested.buffer,
  };
  const memory = new Map<number, number>();
  const woken: number[] = [];
  const taken: TakenPages[] = [];
  let touch: (pages: readonly number[]) => void = () => {};
  const server = new FaultServer({
    transfer: TRANSFER,
    share,
    memory: {
      pageCount,
      fill: (onFaults) => (touch = onFaults),
      install: (first, bytes) => {
        for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
          const page = first + at / PAGE_BYTES;
          if (!memory.has(page)) memory.set(page, bytes[at] ?? 0);
        }
      },
      installZero: ({ first }) => void memory.set(first, 0),
      wake: ({ first }) => void woken.push(first),
    },
    notes: undefined,
    clock: realClock,
    onTaken: (pages) => void taken.push(...pages),
  });
  server.start((error) => assert.fail(String(error)));
  const { lane, sent, ends, arrives } = laneOf(pageCount);
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
    ends,
    arrives,
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
    child.taken.map(({ firstPage, by, zero, bytes }) => ({ firstPage, by, zero, bytes })),
    [{ firstPage: 5, by: "answer", zero: false, bytes: undefined }],
  );
  child.touch(5);
  assert.deepEqual(child.woken, [5], "a page that is there is waited for by nobody");
});

test("what comes with an answer is installed and told together, and who waits for some of it waits no more", () => {
  const child = serving();
  child.link();
  child.touch(9, 11);
  child.gives(9);
  const data = new Uint8Array(4 * PAGE_BYTES).fill(7);
  child.arrives({
    kind: "pages",
    runs: [{ firstPage: 9, pageCount: 4, encoding: "raw", origin: "sweep", data }],
  });
  assert.deepEqual(
    child.taken.map(({ firstPage, pageCount, by, latencyUs }) => [
      firstPage,
      pageCount,
      by,
      latencyUs !== undefined,
    ]),
    [
      [9, 1, "answer", true],
      [9, 4, "around", false],
      [11, 1, "known", true],
    ],
  );
  assert.deepEqual(
    [...child.memory],
    [9, 10, 11, 12].map((page) => [page, page === 9 ? 9 : 7]),
  );
  assert.deepEqual([child.gate.waiting, child.gate.unseen], [0, 6]);
  child.touch(12);
  assert.deepEqual(child.woken, [12]);
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

test("how long a page was waited for that came another way is told as well", () => {
  const child = serving();
  child.link();
  child.touch(9);
  child.server.settled([9, 10]);
  assert.deepEqual(
    child.taken.map(({ firstPage, by }) => ({ firstPage, by })),
    [{ firstPage: 9, by: "known" }],
  );
});

test("an answer with more pages than a request has ends the lane, and nothing of it is installed", () => {
  const child = serving(1 << 18);
  child.link();
  const zeros = (firstPage: number, pageCount: number): PageRun => ({
    firstPage,
    pageCount,
    encoding: "zero",
    origin: "fault",
    data: new Uint8Array(0),
  });
  child.arrives({ kind: "pages", runs: [zeros(0, 1 << 18)] });
  assert.deepEqual(
    child.ends.map(({ code, fatal }) => ({ code, fatal })),
    [{ code: "peer-protocol", fatal: true }],
  );
  assert.equal(child.memory.size, 0);
});

test("a run that does not decode is the peer's fault", () => {
  const child = serving();
  child.link();
  child.arrives({
    kind: "pages",
    runs: [{ firstPage: 1, pageCount: 1, encoding: "lz4", origin: "fault", data: new Uint8Array(9) }],
  });
  assert.deepEqual(
    child.ends.map(({ code, fatal }) => ({ code, fatal })),
    [{ code: "bad-lz4", fatal: true }],
  );
});

test("a lane that brings more than is seen to is ended, and may be dialled again", () => {
  const { gate, told, ask } = answering();
  gate.addUnseen(MAX_UNSEEN_PAGES + 1);
  ask(1);
  assert.deepEqual(told.answered, []);
  gate.addUnseen(-MAX_UNSEEN_PAGES - 1);
  const child = serving();
  child.link();
  child.gate.addUnseen(MAX_UNSEEN_PAGES + 1);
  child.gives(1);
  assert.deepEqual(
    child.ends.map(({ code, fatal }) => ({ code, fatal })),
    [{ code: "too-large", fatal: false }],
  );
});
