import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { realClock } from "../../src/base/index.js";
import { HANDSHAKE_DEADLINE_MS, MAX_HALF_OPEN, MAX_HANDSHAKE_BYTES } from "../../src/lane/limits.js";
import { dial, type Connection } from "../../src/lane/index.js";
import { ManualClock } from "../support/lane-clock.js";
import { KEY, openListener, PATIENCE_MS, Recorder, settle, until } from "../support/lane-pair.js";
import { helloBytes, RawClient, upgraded, upgradeRequest, welcomed } from "../support/lane-raw.js";

const hello = { purpose: "urgent", role: "peer", transfer: 1, epoch: 1 } as const;

test("requests that are no agent's are turned away before anything is upgraded", async () => {
  const { listener, accepted } = await openListener();
  const cases: [string, string, RegExp][] = [
    ["another path", upgradeRequest("/v1/pages"), /^HTTP\/1\.1 404 /],
    ["a path with more", upgradeRequest("/v1/lane?x=1"), /^HTTP\/1\.1 404 /],
    [
      "another subprotocol",
      upgradeRequest("/v1/lane", { "Sec-WebSocket-Protocol": "ramet.v2" }),
      /^HTTP\/1\.1 400 /,
    ],
    [
      "no subprotocol",
      upgradeRequest("/v1/lane", { "Sec-WebSocket-Protocol": undefined }),
      /^HTTP\/1\.1 400 /,
    ],
    ["a web page", upgradeRequest("/v1/control", { Origin: "http://evil.example" }), /^HTTP\/1\.1 403 /],
    [
      "another WebSocket version",
      upgradeRequest("/v1/lane", { "Sec-WebSocket-Version": "12" }),
      /^HTTP\/1\.1 4/,
    ],
    ["no WebSocket key", upgradeRequest("/v1/lane", { "Sec-WebSocket-Key": undefined }), /^HTTP\/1\.1 400 /],
    ["no upgrade", "GET /v1/lane HTTP/1.1\r\nHost: x\r\n\r\n", /^HTTP\/1\.1 426 /],
    ["a post", "POST /v1/lane HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", /^HTTP\/1\.1 426 /],
    ["a head without end", `GET /v1/lane HTTP/1.1\r\nX: ${"x".repeat(20_000)}`, /^$/],
    ["no HTTP at all", "\u0016\u0003\u0001 let us speak TLS\r\n\r\n", /^$/],
  ];
  for (const [name, request, answer] of cases) {
    const client = new RawClient(listener.port, request);
    await until(`the end of ${name}`, () => client.closed);
    assert.match(client.received, answer, name);
  }
  assert.equal(accepted.length, 0);
  await listener.close();
});

test("whoever is silent is dropped at the deadline, however far he came", async () => {
  const clock = new ManualClock();
  const { listener, url, accepted } = await openListener({ clock });
  const silent = new RawClient(listener.port);
  const halfHead = new RawClient(listener.port, "GET /v1/la");
  const noHello = await upgraded(url);
  const noProof = await upgraded(url);
  noProof.send(helloBytes());
  await once(noProof, "message");
  clock.advance(HANDSHAKE_DEADLINE_MS - 1);
  await settle();
  assert.deepEqual(
    [silent.closed, halfHead.closed, noHello.readyState, noProof.readyState],
    [false, false, 1, 1],
  );
  clock.advance(1);
  await until(
    "the end of all",
    () => silent.closed && halfHead.closed && noHello.readyState + noProof.readyState === 6,
  );
  assert.equal(accepted.length, 0);
  assert.equal(clock.pending, 0);
  await listener.close();
});

test("a finished handshake has no deadline any more", async () => {
  const clock = new ManualClock();
  const { listener, url, accepted } = await openListener({ clock });
  const client = await welcomed(url);
  clock.advance(HANDSHAKE_DEADLINE_MS + 1);
  await settle();
  assert.equal(client.readyState, client.OPEN);
  assert.equal(accepted.length, 1);
  accepted[0]?.close({ code: "closed", message: "enough", fatal: false });
  await listener.close();
});

test("a flood of half-open connections does not keep an agent out", async () => {
  const { listener, url, accepted } = await openListener();
  const flood = Array.from({ length: MAX_HALF_OPEN + 20 }, () => new RawClient(listener.port));
  await until("the oldest are dropped", () => flood.filter(({ closed }) => closed).length === 20);
  const connection = await dial({ url, hello, key: KEY, clock: realClock, deadlineMs: PATIENCE_MS });
  await until("the listener's end", () => accepted.length === 1);
  assert.equal(flood.filter(({ closed }) => closed).length, 21);
  connection.close({ code: "closed", message: "enough", fatal: false });
  await listener.close();
  await until("the end of all", () => flood.every(({ closed }) => closed));
});

test("nobody sends more than a handshake takes before it has ended", async () => {
  const { listener, url, accepted } = await openListener();
  for (const path of ["/v1/lane", "/v1/control"]) {
    const long = await upgraded(url, path);
    long.send(Buffer.alloc(MAX_HANDSHAKE_BYTES + 1));
    await once(long, "close");
    const many = await upgraded(url, path);
    const pinging = setInterval(() => {
      for (let ping = 0; ping < 100; ping += 1) many.ping(Buffer.alloc(125));
    }, 1);
    await once(many, "close");
    clearInterval(pinging);
  }
  assert.equal(accepted.length, 0);
  await listener.close();
});

test("text, rubbish and frames in place of the handshake are refused with a reason", async () => {
  const { listener, url, accepted } = await openListener();
  for (const message of ["hello", Buffer.from("rubbish"), Buffer.alloc(24, 2), Buffer.alloc(4097)]) {
    const client = await upgraded(url);
    client.send(message);
    const [code, reason] = (await once(client, "close")) as [number, Buffer];
    assert.equal(code, 4001);
    assert.match(reason.toString(), /^bad-message: /);
  }
  const noProof = await upgraded(url);
  noProof.send(helloBytes());
  noProof.send(helloBytes());
  const [code] = (await once(noProof, "close")) as [number];
  assert.equal(code, 4001);
  assert.equal(accepted.length, 0);
  await listener.close();
});

async function attachedServer() {
  const owner = new Recorder();
  const connections: Connection[] = [];
  const { listener, url } = await openListener({
    onConnection: (connection) => {
      connections.push(connection);
      connection.attach(owner.handlers);
    },
  });
  const client = await welcomed(url);
  return { listener, client, owner, connection: connections[0] as Connection };
}

test("a message longer than the lane takes ends it for good, and is told to the sender", async () => {
  const { listener, client, owner } = await attachedServer();
  client.send(Buffer.alloc(2 * 1024 * 1024));
  const [code] = (await once(client, "close")) as [number];
  assert.equal(code, 1009);
  assert.deepEqual(
    owner.ends.map((end) => ({ code: end.code, fatal: end.fatal })),
    [{ code: "too-large", fatal: true }],
  );
  assert.equal(owner.frames.length, 0);
  await listener.close();
});

test("a text message after the handshake ends the connection for good", async () => {
  const { listener, client, owner } = await attachedServer();
  client.send("done");
  const [code, reason] = (await once(client, "close")) as [number, Buffer];
  assert.equal(code, 4001);
  assert.match(reason.toString(), /^bad-message: /);
  assert.deepEqual(
    owner.ends.map((end) => end.code),
    ["bad-message"],
  );
  await listener.close();
});

test("bytes that are no WebSocket frames end the connection for good, once", async () => {
  const { listener, client, owner } = await attachedServer();
  const socket = (client as unknown as { _socket: { write(bytes: Buffer): void } })._socket;
  socket.write(Buffer.from("ffffffffffffffff", "hex"));
  socket.write(Buffer.alloc(100, 0xff));
  await until("the end", () => owner.ends.length === 1);
  assert.deepEqual(
    owner.ends.map((end) => ({ code: end.code, fatal: end.fatal })),
    [{ code: "bad-message", fatal: true }],
  );
  client.terminate();
  await settle();
  assert.equal(owner.ends.length, 1);
  await listener.close();
});

test("a peer that does not read is given up before its queue is too long", async () => {
  const { listener, client, owner, connection } = await attachedServer();
  client.pause();
  const frame = Buffer.alloc(1024 * 1024);
  for (let sent = 0; sent < 100 && owner.ends.length === 0; sent += 1) {
    connection.send(frame);
    assert.ok(connection.queuedBytes < 80 * 1024 * 1024);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until("the end", () => owner.ends.length === 1);
  assert.deepEqual(
    owner.ends.map((end) => ({ code: end.code, fatal: end.fatal })),
    [{ code: "dead", fatal: false }],
  );
  await listener.close();
});
