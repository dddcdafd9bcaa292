import assert from "node:assert/strict";
import { test } from "node:test";
import { LOCAL_IDENTITY, CodedError, DeadlineError, silentLog } from "../../../src/base/index.js";
import {
  ControlError,
  decodeMessage,
  encodeMessage,
  EVENT_BACKLOG_BYTES,
  LAGGED_RETRY_MS,
  MAX_CLIENT_PENDING,
  RemoteError,
  REPLY_BACKLOG_BYTES,
  RpcClient,
  RpcServerSession,
  type AnyEvent,
} from "../../../src/control/index.js";
import { channelPair, clientHandlers, GUEST, ManualClock, rpcPair, TRANSFER } from "./support.js";

const WAIT = { deadlineMs: 1000 };
const LIMITS = { maxBytes: 1 << 20, maxValues: 1000 };

function coded(code: string, text?: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof CodedError, String(error));
    assert.equal(error.code, code);
    if (text) assert.match(error.message, text);
    return true;
  };
}

test("a call gets its own answer, whatever the order of the answers", async () => {
  const answers: (() => void)[] = [];
  const { client } = rpcPair({
    "guest.show": ({ name }) =>
      new Promise((resolve) => answers.push(() => resolve({ guest: { ...GUEST, name } }))),
  });
  const first = client.call("guest.show", { name: "one" }, WAIT);
  const second = client.call("guest.show", { name: "two" }, WAIT);
  for (const answer of answers.reverse()) answer();
  assert.equal((await first).guest.name, "one");
  assert.equal((await second).guest.name, "two");
});

test("defaults are filled in and forwards are parsed before the handler sees them", async () => {
  const seen: unknown[] = [];
  const { client } = rpcPair({
    "guest.run": (params) => {
      seen.push(params);
      return Promise.resolve({ guest: GUEST });
    },
  });
  await client.call(
    "guest.run",
    {
      name: "web",
      kernel: "/boot/vmlinuz",
      network: { mode: "user", forwards: ["8080:80", "0.0.0.0:53:53/udp"] },
    },
    WAIT,
  );
  assert.deepEqual(seen, [
    {
      name: "web",
      kernel: "/boot/vmlinuz",
      append: "",
      memoryMiB: 256,
      cpus: 1,
      architecture: "x86_64",
      network: {
        mode: "user",
        forwards: [
          { address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" },
          { address: "0.0.0.0", hostPort: 53, guestPort: 53, protocol: "udp" },
        ],
      },
      disks: [],
    },
  ]);
});

test("a coded error of a handler arrives with its code, its message and no stack", async () => {
  const { client, near } = rpcPair({
    "guest.show": () => Promise.reject(new CodedError("not-found", "there is no guest named web")),
  });
  const frames: Uint8Array[] = [];
  const other = near.other;
  assert.ok(other);
  const send = other.send.bind(other);
  other.send = (bytes) => {
    frames.push(bytes);
    send(bytes);
  };
  await assert.rejects(client.call("guest.show", { name: "web" }, WAIT), (error: unknown) => {
    assert.ok(error instanceof RemoteError);
    return coded("not-found", /^there is no guest named web$/)(error);
  });
  assert.deepEqual(decodeMessage(frames[0] as Uint8Array, LIMITS), {
    id: 1,
    error: { code: "not-found", message: "there is no guest named web" },
  });
});

test("what is no coded error is answered as internal", async () => {
  const { client } = rpcPair({ "guest.show": () => Promise.reject(new TypeError("oops")) });
  await assert.rejects(client.call("guest.show", { name: "web" }, WAIT), coded("internal", /^oops$/));
});

test("a result that breaks its own schema is an internal error that names the field", async () => {
  const { client } = rpcPair({ "guest.show": () => Promise.resolve({ guest: { ...GUEST, cpus: 0 } }) });
  await assert.rejects(
    client.call("guest.show", { name: "web" }, WAIT),
    coded("internal", /^the result of guest.show: guest.cpus must be at least 1$/),
  );
});

test("fields that are undefined are left out of results, and unknown ones too", async () => {
  const { client } = rpcPair({
    "guest.show": () => Promise.resolve({ guest: { ...GUEST, pid: undefined, secret: "x" } as never }),
  });
  assert.deepEqual(await client.call("guest.show", { name: "web" }, WAIT), { guest: GUEST });
});

test("unknown methods, wrong roles and bad parameters are refused with a code", async () => {
  const { client } = rpcPair({});
  const call = client.call.bind(client) as (
    method: string,
    params: object,
    options: object,
  ) => Promise<unknown>;
  await assert.rejects(call("guest.fly", {}, WAIT), coded("unknown-method", /guest.fly/));
  await assert.rejects(call("toString", {}, WAIT), coded("unknown-method"));
  await assert.rejects(call("peer.run", { transfer: 1 }, WAIT), coded("forbidden", /peer/));
  await assert.rejects(
    call("guest.show", { name: "Web" }, WAIT),
    coded("bad-params", /^guest.show: name must /),
  );
});

test("a peer's connection may call only the methods of peers", async () => {
  const { near, far } = channelPair();
  const clock = new ManualClock();
  const no = () => Promise.reject(new Error("not expected"));
  const handlers = {
    "peer.info": () => Promise.resolve({ name: "b", version: "1", emulators: [], availableBytes: 5e12 }),
    "peer.prepare": no,
    "peer.putFile": no,
    "peer.lacks": no,
    "peer.ahead": no,
    "peer.relayTo": no,
    "peer.relayFrom": no,
    "peer.findImage": no,
    "peer.openImage": no,
    "peer.closeBlocks": no,
    "peer.openLayer": no,
    "peer.returnLayer": no,
    "peer.fence": no,
    "peer.start": no,
    "peer.run": no,
    "peer.show": no,
    "peer.cancel": no,
    "peer.warm": no,
    "peer.spare": no,
  };
  new RpcServerSession(far, { identity: LOCAL_IDENTITY, role: "peer", handlers, clock, log: silentLog });
  const client = new RpcClient(near, { clock, log: silentLog });
  assert.equal((await client.call("peer.info", {}, WAIT)).availableBytes, 5e12);
  await assert.rejects(client.call("guest.list", {}, WAIT), coded("forbidden"));
});

test("a call ends at its deadline, and its late answer is dropped", async () => {
  let answer: () => void = () => {};
  const { client, clock } = rpcPair({
    "guest.list": () => new Promise((resolve) => (answer = () => resolve({ guests: [] }))),
  });
  const call = client.call("guest.list", {}, WAIT);
  clock.advance(1000);
  await assert.rejects(call, DeadlineError);
  answer();
  assert.equal(clock.timers, 0);
});

test("when the connection ends, unanswered and later calls fail with closed", async () => {
  const ends: string[] = [];
  const { client, session, clock } = rpcPair({ "guest.list": () => new Promise(() => {}) });
  client.onEnd((end) => ends.push(end.code));
  session.onEnd((end) => ends.push(`session ${end.code}`));
  const call = client.call("guest.list", {}, WAIT);
  session.close({ code: "shutdown", message: "the agent ends", fatal: false });
  await assert.rejects(call, coded("closed", /the agent ends/));
  await assert.rejects(client.call("guest.list", {}, WAIT), coded("closed"));
  assert.deepEqual(ends, ["shutdown", "session shutdown"]);
  assert.equal(clock.timers, 0);
});

test("a client's own close is told to the session once", () => {
  const { client, session } = rpcPair({});
  const ends: string[] = [];
  session.onEnd((end) => ends.push(end.code));
  client.close();
  client.close();
  assert.deepEqual(ends, ["closed"]);
});

test("too many unanswered requests are busy, at the client's side and at the agent's", async () => {
  const { near, far } = channelPair();
  const clock = new ManualClock();
  let running = 0;
  const handlers = clientHandlers({
    "guest.list": () => {
      running += 1;
      return new Promise(() => {});
    },
  });
  new RpcServerSession(far, { identity: LOCAL_IDENTITY, role: "client", handlers, clock, log: silentLog });
  const replies: Record<string, unknown>[] = [];
  near.attach({ onFrame: (bytes) => replies.push(decodeMessage(bytes, LIMITS)), onEnd: () => {} });
  for (let id = 1; id <= MAX_CLIENT_PENDING + 1; id += 1)
    near.send(encodeMessage({ id, method: "guest.list" }));
  await Promise.resolve();
  assert.equal(running, MAX_CLIENT_PENDING);
  assert.equal(replies.length, 1);
  assert.equal((replies[0]?.error as { code: string }).code, "busy");
  assert.equal(replies[0]?.id, MAX_CLIENT_PENDING + 1);

  const { client } = rpcPair({ "guest.list": () => new Promise(() => {}) });
  const calls = Array.from({ length: MAX_CLIENT_PENDING }, () => client.call("guest.list", {}, WAIT));
  await assert.rejects(client.call("guest.list", {}, WAIT), coded("busy"));
  client.close();
  for (const call of calls) await assert.rejects(call, ControlError);
});

test("events of a topic go to those who subscribed, others to all", async () => {
  const { client, session } = rpcPair({});
  const events: AnyEvent[] = [];
  client.onEvent((event) => events.push(event));
  assert.equal(session.sendEvent("transfer", { transfer: TRANSFER }), false);
  assert.deepEqual(await client.call("events.subscribe", { topics: ["transfer"] }, WAIT), {
    topics: ["transfer"],
  });
  assert.equal(session.sendEvent("transfer", { transfer: TRANSFER }), true);
  assert.equal(session.sendEvent("guest", { change: "changed", guest: GUEST }), false);
  session.sendEvent("console", { console: 1, data: Buffer.from("login: ") });
  assert.deepEqual(
    events.map((event) => event.event),
    ["transfer", "console"],
  );
  assert.deepEqual(events[0]?.data, { transfer: TRANSFER });
  const output = events[1]?.data as { data: Uint8Array };
  assert.equal(Buffer.from(output.data).toString(), "login: ");
});

test("a client that does not read loses events, is told how many, and stays bounded", async () => {
  const { client, session, far, clock } = rpcPair({});
  const events: AnyEvent[] = [];
  client.onEvent((event) => events.push(event));
  far.stalled = true;
  const data = Buffer.alloc(32 * 1024);
  let dropped = 0;
  for (let sent = 0; sent < 200; sent += 1)
    if (!session.sendEvent("console", { console: 1, data })) dropped += 1;
  assert.ok(dropped > 0 && dropped < 200);
  assert.ok(far.queuedBytes < EVENT_BACKLOG_BYTES + 64 * 1024);
  clock.advance(LAGGED_RETRY_MS);
  assert.equal(clock.timers, 1, "looked at again while it does not read");
  far.stalled = false;
  far.flush();
  clock.advance(LAGGED_RETRY_MS);
  const last = events.at(-1);
  assert.deepEqual(last, { event: "lagged", data: { dropped } });
  assert.equal(events.length, 200 - dropped + 1);
  assert.equal(clock.timers, 0);
});

test("a client that never reads its answers is cut off", async () => {
  const line = "x".repeat(1000);
  const { near, far } = channelPair();
  const handlers = clientHandlers({ "guest.logs": () => Promise.resolve({ lines: Array(2000).fill(line) }) });
  const clock = new ManualClock();
  new RpcServerSession(far, { identity: LOCAL_IDENTITY, role: "client", handlers, clock, log: silentLog });
  far.stalled = true;
  for (let id = 1; id <= 20; id += 1)
    near.send(encodeMessage({ id, method: "guest.logs", params: { name: "a" } }));
  await new Promise((resolve) => process.nextTick(resolve));
  assert.equal(far.ended?.code, "too-slow");
  assert.ok(far.queuedBytes <= REPLY_BACKLOG_BYTES);
});

test("a client ignores events it does not know and replies it does not wait for", async () => {
  const { near, far } = channelPair();
  const client = new RpcClient(near, { clock: new ManualClock(), log: silentLog });
  const events: AnyEvent[] = [];
  client.onEvent((event) => events.push(event));
  far.send(encodeMessage({ event: "weather", data: { sun: true } }));
  far.send(encodeMessage({ event: "guest", data: { change: "exploded" } }));
  far.send(encodeMessage({ id: 99, result: {} }));
  far.send(encodeMessage({ hello: 1 }));
  assert.equal(events.length, 0);
  assert.equal(client.end, undefined);
  far.send(Buffer.from([0xc1]));
  assert.equal(near.ended?.code, "bad-message");
});

test("an answer that breaks the method's schema is a bad answer", async () => {
  const { near, far } = channelPair();
  const client = new RpcClient(near, { clock: new ManualClock(), log: silentLog });
  const call = client.call("guest.list", {}, WAIT);
  far.send(encodeMessage({ id: 1, result: { guests: 5 } }));
  await assert.rejects(call, coded("bad-answer", /guests must be a list/));
});
