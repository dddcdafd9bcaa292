import assert from "node:assert/strict";
import { test } from "node:test";
import { AssertionError, MAX_CONTROL_BYTES } from "../../../src/base/index.js";
import {
  CLOSE_DEADLINE_MS,
  DEAD_AFTER_MS,
  MAX_LANE_MESSAGE_BYTES,
  PING_INTERVAL_MS,
} from "../../../src/lane/limits.js";
import { dial, parseAddress } from "../../../src/lane/index.js";
import { ManualClock } from "../../support/lane-clock.js";
import {
  KEY,
  openListener,
  openPair,
  PATIENCE_MS,
  Recorder,
  settle,
  until,
} from "../../support/lane-pair.js";

const END = { code: "complete", message: "every page was received", fatal: true };

test("a connection that is pinged and answers lives on, however long", async () => {
  const clock = new ManualClock();
  const { child, parent, close } = await openPair(clock);
  const owners = [new Recorder(), new Recorder()] as const;
  child.attach(owners[0].handlers);
  parent.attach(owners[1].handlers);
  for (let ms = 0; ms < 5 * DEAD_AFTER_MS; ms += PING_INTERVAL_MS) {
    clock.advance(PING_INTERVAL_MS);
    await settle();
  }
  assert.deepEqual([owners[0].ends, owners[1].ends], [[], []]);
  child.close(END);
  await until("the end", () => owners[1].ends.length === 1);
  await close();
  await until("no timer", () => clock.pending === 0);
});

test("a connection on which nothing is heard is dead after a while, and may be dialled again", async () => {
  const clock = new ManualClock();
  const { child, parent, close } = await openPair(clock);
  const owner = new Recorder();
  child.attach(owner.handlers);
  parent.attach(new Recorder().handlers);
  // No turn of the event loop in between: no pong can come in.
  clock.advance(DEAD_AFTER_MS + PING_INTERVAL_MS);
  assert.deepEqual(
    owner.ends.map(({ code, fatal }) => ({ code, fatal })),
    [{ code: "dead", fatal: false }],
  );
  await settle();
  assert.equal(owner.ends.length, 1);
  await close();
  await until("no timer", () => clock.pending === 0);
});

test("a close that is not answered ends the socket at its deadline", async () => {
  const clock = new ManualClock();
  const { child, parent, close } = await openPair(clock);
  const owner = new Recorder();
  child.attach(owner.handlers);
  // The other side has not attached: its socket is paused and reads no close.
  child.close(END);
  await settle();
  clock.advance(CLOSE_DEADLINE_MS);
  const other = new Recorder();
  parent.attach(other.handlers);
  await until("the end", () => other.ends.length === 1);
  assert.deepEqual(other.ends, [END]);
  assert.deepEqual(owner.ends, []);
  await close();
  await until("no timer", () => clock.pending === 0);
});

test("a message longer than the lane's limit is our own mistake", async () => {
  const { child, close } = await openPair();
  child.attach(new Recorder().handlers);
  assert.throws(() => child.send(new Uint8Array(MAX_LANE_MESSAGE_BYTES + 1)), AssertionError);
  assert.throws(() => child.attach(new Recorder().handlers), AssertionError);
  await close();
});

test("the control lane takes the longest control message", async () => {
  const { listener, url, accepted } = await openListener();
  const hello = { purpose: "control", role: "client" } as const;
  const client = await dial({ url, hello, key: KEY, clock: new ManualClock(), deadlineMs: PATIENCE_MS });
  const owner = new Recorder();
  client.attach(owner.handlers);
  await until("the listener's end", () => accepted.length === 1);
  accepted[0]?.attach({ onFrame: (frame) => accepted[0]?.send(frame), onEnd: () => {} });
  const message = Buffer.alloc(MAX_CONTROL_BYTES, 1);
  client.send(message);
  await until("the echo", () => owner.frames.length === 1);
  assert.ok(owner.frames[0]?.equals(message));
  client.close(END);
  await listener.close();
});

test("addresses", () => {
  const at = (host: string, port: number, encrypted: boolean) => ({ host, port, encrypted });
  assert.deepEqual(parseAddress("wss://192.0.2.1:7001"), at("192.0.2.1", 7001, true));
  assert.deepEqual(parseAddress("wss://agent.example:443/"), at("agent.example", 443, true));
  assert.deepEqual(parseAddress("ws://127.0.0.1:7001"), at("127.0.0.1", 7001, false));
  assert.deepEqual(parseAddress("ws://localhost:80/"), at("localhost", 80, false));
  assert.deepEqual(parseAddress("ws://[::1]:9"), at("::1", 9, false));
  assert.deepEqual(parseAddress("unix:/run/ramet/agent.sock"), { path: "/run/ramet/agent.sock" });
  const wrong = [
    "",
    "127.0.0.1:7001",
    "ws://127.0.0.1",
    "ws://127.0.0.1:0",
    "ws://127.0.0.1:70000",
    "ws://192.0.2.1:7001",
    "ws://agent.example:7001",
    "wss://127.0.0.1",
    "wss://127.0.0.1:443/v1",
    "http://127.0.0.1:7001",
    "ws://me:secret@127.0.0.1:7001",
    "ws://127.0.0.1:7001/v1/control",
    "ws://127.0.0.1:7001/?x",
    "unix:",
    "unix:relative",
    `unix:/${"x".repeat(107)}`,
    "unix:/a\0b",
  ];
  for (const url of wrong) assert.throws(() => parseAddress(url), { code: "bad-address", fatal: true }, url);
});

test("a parked connection lives on however long, and can then be attached", async () => {
  const clock = new ManualClock();
  const { child, parent, close } = await openPair(clock);
  const ended: string[] = [];
  child.park(() => ended.push("child"));
  parent.park(() => ended.push("parent"));
  for (let ms = 0; ms < 3 * DEAD_AFTER_MS; ms += PING_INTERVAL_MS) {
    clock.advance(PING_INTERVAL_MS);
    await settle();
  }
  const owners = [new Recorder(), new Recorder()] as const;
  child.attach(owners[0].handlers);
  parent.attach(owners[1].handlers);
  child.send(Buffer.from("have"));
  parent.send(Buffer.from("pages"));
  await until("both messages", () => owners[0].frames.length + owners[1].frames.length === 2);
  assert.deepEqual(ended, []);
  child.close(END);
  await until("the end", () => owners[1].ends.length === 1);
  await close();
});

test("a message that comes to a parked connection ends it, which each side is told once", async () => {
  const clock = new ManualClock();
  const { child, parent, close } = await openPair(clock);
  const ended: string[] = [];
  child.park(() => ended.push("child"));
  parent.park(() => ended.push("parent"));
  child.send(Buffer.from("have"));
  await until("both ends", () => ended.length === 2);
  await settle();
  assert.deepEqual(ended.toSorted(), ["child", "parent"]);
  const late = new Recorder();
  parent.attach(late.handlers);
  assert.deepEqual(
    late.ends.map(({ code }) => code),
    ["bad-message"],
  );
  await close();
  await until("no timer", () => clock.pending === 0);
});
