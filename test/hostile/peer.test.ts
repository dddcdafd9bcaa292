import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  BULK_WINDOW_BYTES,
  FRAME_HEADER_BYTES,
  realClock,
  SeededRandom,
  silentLog,
  type Holder,
} from "../../src/base/index.js";
import { LaneRoutes } from "../../src/agent/transfers/lane-routes.js";
import { dial, LaneError, type Connection, type Credentials, type Listener } from "../../src/lane/index.js";
import { MAX_QUEUED_BYTES } from "../../src/lane/limits.js";
import { Instant, ParentSession } from "../../src/transfer/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../../src/wire/index.js";
import { TestAuthority } from "../support/certificates.js";
import { openListener, PATIENCE_MS, Recorder, until } from "../support/lane-pair.js";
import { SimulatedCopies } from "../support/simulation/kept.js";
import { contentOf, SimulatedMemory } from "../support/simulation/memory.js";
import { Scheduler } from "../support/simulation/scheduler.js";

const PAGES = 600;
const TOKEN = "a token of this transfer";

const authority = new TestAuthority();
const liar = authority.credentials("liar");
const honest = authority.credentials("honest");
const routes = new LaneRoutes({ isWhole: () => true });
let listener: Listener;
let url: string;
let transfers = 0;

/** A host that is the parent of transfers, reached as an agent is: TLS, roles, routes of lanes, sessions. */
before(async () => {
  ({ listener, url } = await openListener({
    credentials: authority.credentials("parent"),
    authorise: (hello, identity) => void routes.find(identity, hello.transfer, hello.token),
    onConnection: (connection) => {
      const { purpose, transfer, token, epoch } = connection.hello;
      assert.ok(purpose === "urgent" || purpose === "bulk" || purpose === "precopy");
      routes
        .find(connection.identity, transfer, token)
        .acceptLane(purpose, epoch ?? 0, connection, { lz4: true });
    },
  }));
});
after(() => listener.close());

/** A transfer whose child is at the host of a holder; its instant has been. */
async function makeTransfer(
  holder: Holder,
): Promise<{ transfer: number; session: ParentSession; close(): void }> {
  const transfer = (transfers += 1);
  const memory = new SimulatedMemory(new Scheduler(new SeededRandom(1)), PAGES);
  // Nobody plays the simulation's time here.
  memory.protectAside = async (range) => memory.protect(range);
  for (let page = 0; page < PAGES; page += 1) memory.place(page, contentOf(page, page + 1));
  const shared = { clock: realClock, log: silentLog };
  const copies = new SimulatedCopies();
  const instant = new Instant({ ...shared, memory, copies, copyBudgetBytes: 1 << 20, tracking: true });
  const session = new ParentSession({ ...shared, transfer, instant, compress: false, sweep: false });
  await instant.arm();
  instant.freeze();
  session.begin({});
  const close = routes.open(transfer, TOKEN, {
    holder: () => holder,
    acceptLane: (lane, epoch, connection, offers) => {
      assert.ok(lane !== "precopy");
      session.acceptLane(lane, epoch, connection, offers);
    },
    shareFile: () => undefined,
  });
  return { transfer, session, close };
}

function dialLane(
  transfer: number,
  purpose: "urgent" | "bulk",
  options: { as?: Credentials; epoch?: number; token?: string } = {},
): Promise<Connection> {
  const { as = liar, epoch = 1, token = TOKEN } = options;
  const hello = { purpose, role: "peer", transfer, epoch, token } as const;
  return dial({ url, hello, credentials: as, clock: realClock, deadlineMs: PATIENCE_MS });
}

/** Both lanes of a transfer, by a peer that may have them, and what comes on each. */
async function lanesOf(transfer: number, options: Parameters<typeof dialLane>[2] = {}) {
  const urgent = await dialLane(transfer, "urgent", options);
  const bulk = await dialLane(transfer, "bulk", options);
  const heard = { urgent: new Recorder(), bulk: new Recorder() };
  urgent.attach(heard.urgent.handlers);
  bulk.attach(heard.bulk.handlers);
  return { urgent, bulk, heard };
}

/** A frame, with some of its bytes changed. */
function frame(
  content: Frame,
  at: { transfer: number; sequence?: number },
  change?: (bytes: Buffer) => void,
): Buffer {
  const bytes = encodeFrame(content, { sequence: 1, ...at });
  change?.(bytes);
  return bytes;
}

/** The whole way of an honest child to one page, which shows that the host is well. */
async function fetchPage(): Promise<void> {
  const { transfer, close } = await makeTransfer(honest.identity);
  const { urgent, bulk, heard } = await lanesOf(transfer, { as: honest });
  bulk.send(frame({ kind: "have", last: true, runs: [] }, { transfer }));
  urgent.send(frame({ kind: "request", pages: [7] }, { transfer }));
  await until("the page", () => heard.urgent.frames.length === 1);
  const [bytes] = heard.urgent.frames;
  const answer = decodeFrame(bytes as Buffer, { transfer, sequence: 1, pageCount: PAGES });
  assert.ok(answer.kind === "pages" && answer.runs[0]?.firstPage === 7);
  assert.deepEqual(Buffer.from(answer.runs[0].data), Buffer.from(contentOf(7, 8)));
  for (const lane of [urgent, bulk]) lane.close({ code: "cancelled", message: "enough", fatal: true });
  close();
}

const HAVE: Frame = { kind: "have", last: true, runs: [] };
const REQUEST: Frame = { kind: "request", pages: [1] };

/** What a peer may say that is not so, on which lane, and what that is called. */
const LIES: [string, "urgent" | "bulk", string, (transfer: number) => Buffer[]][] = [
  [
    "another transfer's frame",
    "urgent",
    "wrong-transfer",
    (transfer) => [frame(REQUEST, { transfer: transfer + 1 })],
  ],
  [
    "a frame said twice",
    "urgent",
    "bad-sequence",
    (transfer) => [frame(REQUEST, { transfer }), frame(REQUEST, { transfer })],
  ],
  [
    "frames out of order",
    "urgent",
    "bad-sequence",
    (transfer) => [frame(REQUEST, { transfer, sequence: 2 })],
  ],
  [
    "a page past the end",
    "urgent",
    "page-out-of-range",
    (transfer) => [frame({ kind: "request", pages: [PAGES] }, { transfer })],
  ],
  [
    "pages received past the end",
    "bulk",
    "page-out-of-range",
    (transfer) => [frame({ ...HAVE, runs: [{ first: PAGES - 1, count: 2 }] }, { transfer })],
  ],
  [
    "a run that wraps around",
    "bulk",
    "page-out-of-range",
    (transfer) => [
      frame({ ...HAVE, runs: [{ first: 1, count: 1 }] }, { transfer }, (bytes) => {
        bytes.writeUInt32BE(0xffffffff, FRAME_HEADER_BYTES + 8);
        bytes.writeUInt32BE(2, FRAME_HEADER_BYTES + 12);
      }),
    ],
  ],
  [
    "a huge length",
    "urgent",
    "bad-length",
    (transfer) => [frame(REQUEST, { transfer }, (bytes) => bytes.writeUInt32BE(0xffffffff, 12))],
  ],
  [
    "a huge count",
    "urgent",
    "bad-count",
    (transfer) => [frame(REQUEST, { transfer }, (bytes) => bytes.writeUInt16BE(0xffff, FRAME_HEADER_BYTES))],
  ],
  [
    "more credit than a window",
    "bulk",
    "bad-credit",
    (transfer) => [
      frame(HAVE, { transfer }),
      frame({ kind: "received", creditBytes: 0, runs: [] }, { transfer, sequence: 2 }, (bytes) =>
        bytes.writeUInt32BE(BULK_WINDOW_BYTES + 1, FRAME_HEADER_BYTES),
      ),
    ],
  ],
  [
    "credit for what was never sent",
    "bulk",
    "peer-protocol",
    (transfer) => [
      frame(HAVE, { transfer }),
      frame({ kind: "received", creditBytes: BULK_WINDOW_BYTES, runs: [] }, { transfer, sequence: 2 }),
    ],
  ],
  [
    "completion while pages are owed",
    "bulk",
    "peer-protocol",
    (transfer) => [frame(HAVE, { transfer }), frame({ kind: "done" }, { transfer, sequence: 2 })],
  ],
  [
    "what it has, twice over",
    "bulk",
    "peer-protocol",
    (transfer) => [frame(HAVE, { transfer }), frame(HAVE, { transfer, sequence: 2 })],
  ],
  ["a frame on the wrong lane", "urgent", "peer-protocol", (transfer) => [frame(HAVE, { transfer })]],
  [
    "the parent's own words",
    "bulk",
    "peer-protocol",
    (transfer) => [frame({ kind: "hashes", firstPage: 0, digests: Buffer.alloc(16) }, { transfer })],
  ],
  [
    "no kind at all",
    "urgent",
    "unknown-kind",
    (transfer) => [frame(REQUEST, { transfer }, (bytes) => bytes.writeUInt8(0, 0))],
  ],
  [
    "flags nobody knows",
    "urgent",
    "bad-flags",
    (transfer) => [frame(REQUEST, { transfer }, (bytes) => bytes.writeUInt8(0x80, 1))],
  ],
  ["less than a header", "urgent", "short-frame", () => [Buffer.alloc(FRAME_HEADER_BYTES - 1)]],
];

test("a peer that lies over lanes of its own is told what was wrong, and its transfer ends, for good", async () => {
  const before = process.memoryUsage().rss;
  for (const [lie, lane, code, frames] of LIES) {
    const { transfer, session, close } = await makeTransfer(liar.identity);
    const lanes = await lanesOf(transfer);
    for (const bytes of frames(transfer)) lanes[lane].send(bytes);
    await until(
      `the end for ${lie}`,
      () => lanes.heard.urgent.ends.length + lanes.heard.bulk.ends.length === 2,
    );
    const [end] = lanes.heard[lane].ends;
    assert.deepEqual({ lie, code: end?.code, fatal: end?.fatal }, { lie, code, fatal: true });
    assert.equal(session.phase.phase, "failed", lie);
    close();
  }
  await fetchPage();
  assert.ok(process.memoryUsage().rss - before < 256 * 1024 * 1024, "what lies cost is bounded");
});

test("a peer with a good certificate gets no page of a transfer that is not its own", async () => {
  const { transfer, session, close } = await makeTransfer(honest.identity);
  const guesses: [number, Parameters<typeof dialLane>[2]][] = [
    [transfer, {}],
    [transfer, { as: authority.credentials("honest-2") }],
    [transfer, { as: honest, token: "another token of this" }],
    [transfer + 1000, { as: honest }],
  ];
  for (const [number, options] of guesses) {
    await assert.rejects(dialLane(number, "urgent", options), (error) => {
      assert.ok(error instanceof LaneError);
      assert.equal(error.code, "unknown-transfer");
      assert.match(error.message, /sends no pages for transfer/);
      return true;
    });
  }
  assert.notEqual(session.phase.phase, "failed", "what a stranger tries is nothing to the transfer");
  close();
  await fetchPage();
});

test("a second lane of one kind, and lanes of an epoch that is over, are ended, and the others go on", async () => {
  const { transfer, session, close } = await makeTransfer(liar.identity);
  const lanes = await lanesOf(transfer, { epoch: 5 });
  lanes.bulk.send(frame(HAVE, { transfer }));
  for (const epoch of [5, 4]) {
    for (const purpose of ["urgent", "bulk"] as const) {
      const again = await dialLane(transfer, purpose, { epoch });
      const heard = new Recorder();
      again.attach(heard.handlers);
      await until("the end", () => heard.ends.length === 1);
    }
  }
  lanes.urgent.send(frame(REQUEST, { transfer }));
  await until("the page", () => lanes.heard.urgent.frames.length === 1);
  assert.equal(session.phase.phase, "linked");
  assert.deepEqual([lanes.heard.urgent.ends, lanes.heard.bulk.ends], [[], []]);
  for (const lane of [lanes.urgent, lanes.bulk])
    lane.close({ code: "cancelled", message: "enough", fatal: true });
  close();
});

test("a peer that asks without end and never reads is cut off while others are served", async () => {
  const { transfer, session, close } = await makeTransfer(liar.identity);
  const urgent = await dialLane(transfer, "urgent");
  const bulk = await dialLane(transfer, "bulk");
  bulk.attach(new Recorder().handlers);
  bulk.send(frame(HAVE, { transfer }));
  await until("the lanes", () => session.phase.phase === "linked");
  const before = process.memoryUsage().rss;
  const all = Array.from({ length: 512 }, (_, page) => page);
  // Not attached: nothing that comes is read.
  for (let sequence = 1; sequence <= 400 && session.phase.phase === "linked"; sequence += 1) {
    urgent.send(frame({ kind: "request", pages: all }, { transfer, sequence }));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until("the lanes' end", () => session.phase.phase === "waiting-for-child");
  await fetchPage();
  const growth = process.memoryUsage().rss - before;
  assert.ok(growth < 4 * MAX_QUEUED_BYTES, `${growth} bytes more than before`);
  urgent.close({ code: "cancelled", message: "enough", fatal: true });
  bulk.close({ code: "cancelled", message: "enough", fatal: true });
  close();
});
