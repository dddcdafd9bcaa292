import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectTcp, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";
import { connect } from "node:tls";
import { realClock, SeededRandom, silentLog } from "../../../src/base/index.js";
import { dial, Listener, type Connection, type ListenerOptions } from "../../../src/lane/index.js";
import { firstProtocolOf } from "../../../src/lane/client-hello.js";
import { isUrgent } from "../../../src/lane/sorting.js";
import { takeDescriptor } from "../../../src/memory/index.js";
import { TestAuthority } from "../../support/certificates.js";
import { KEY, openListener, PATIENCE_MS, Recorder, until, withDirectory } from "../../support/lane-pair.js";

/** The first bytes a TLS client sends that offers these protocols. */
async function helloOf(protocols: string[]): Promise<Buffer> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const arrived = once(server, "connection");
  const client = connect({
    host: "127.0.0.1",
    port: (server.address() as AddressInfo).port,
    ...(protocols.length === 0 ? {} : { ALPNProtocols: protocols }),
  });
  client.on("error", () => {});
  const [socket] = await arrived;
  const [head] = await once(socket, "data");
  client.destroy();
  socket.destroy();
  server.close();
  return head as Buffer;
}

test("a client's first protocol is read from its first message, and from nothing less", async () => {
  const head = await helloOf(["ramet-urgent", "http/1.1"]);
  assert.equal(firstProtocolOf(head), "ramet-urgent");
  assert.equal(firstProtocolOf(await helloOf(["http/1.1", "ramet-urgent"])), "http/1.1");
  assert.equal(firstProtocolOf(await helloOf([])), undefined);
  for (let length = 0; length < head.length; length += 1)
    assert.notEqual(firstProtocolOf(head.subarray(0, length)), "http/1.1");
  assert.equal(firstProtocolOf(Buffer.from("GET /v1/urgent HTTP/1.1\r\n")), undefined);
});

test("first bytes that are anything are sorted somewhere", async () => {
  const head = await helloOf(["ramet-urgent", "http/1.1"]);
  const random = new SeededRandom(7);
  for (let turn = 0; turn < 5000; turn += 1) {
    const bytes = Buffer.from(head.subarray(0, random.below(head.length + 1)));
    for (let change = random.below(4); change > 0 && bytes.length > 0; change -= 1)
      bytes[random.below(bytes.length)] = random.below(256);
    assert.equal(typeof isUrgent(bytes), "boolean");
  }
  assert.equal(isUrgent(Buffer.from("GET /v1/urgent HTTP/1.1\r\nHost: x\r\n")), true);
  assert.equal(isUrgent(Buffer.from("GET /v1/lane HTTP/1.1\r\nHost: x\r\n")), false);
});

const leftovers: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of leftovers) await close();
});

/** A listener that hands urgent lanes on to another one, as the threads of an agent do. */
async function openSorted(options: Partial<ListenerOptions>) {
  const taken: Connection[] = [];
  const { address = { host: "127.0.0.1", port: 0 }, credentials } = options;
  const other = Listener.ofHanded({
    address,
    credentials,
    key: credentials === undefined ? KEY : undefined,
    clock: realClock,
    log: silentLog,
    onConnection: (connection) => taken.push(connection),
  });
  leftovers.push(() => other.close());
  const handOn = {
    duplicate: (descriptor: number) => takeDescriptor(process.pid, descriptor),
    take: (handed: Parameters<Listener["take"]>[0]) => other.take(handed),
  };
  return { ...(await openListener({ ...options, handOn })), taken };
}

test("urgent lanes come to the other listener, and everything else does not", async () => {
  const authority = new TestAuthority();
  await withDirectory(async (directory) => {
    for (const options of [
      {},
      { address: { path: join(directory, "agent.sock") } },
      { credentials: authority.credentials("parent") },
    ]) {
      const { url, accepted, taken } = await openSorted(options);
      const credentials = "credentials" in options ? authority.credentials("child") : undefined;
      const dialled = { url, credentials, clock: realClock, deadlineMs: PATIENCE_MS };
      const lane = { role: "peer", transfer: 7, epoch: 1 } as const;
      const key = credentials === undefined ? KEY : undefined;
      const urgent = await dial({ ...dialled, key, hello: { purpose: "urgent", ...lane } });
      const bulk = await dial({ ...dialled, key, hello: { purpose: "bulk", ...lane } });
      const control = await dial({ ...dialled, key, hello: { purpose: "control", role: "peer" } });
      await until("all three", () => accepted.length + taken.length === 3);
      assert.deepEqual(
        [taken, accepted].map((those) => those.map(({ hello }) => hello.purpose)),
        [["urgent"], ["bulk", "control"]],
      );
      const heard = new Recorder();
      taken[0]?.attach(heard.handlers);
      urgent.send(Buffer.from("a page, please"));
      await until("the frame", () => heard.frames.length === 1);
      assert.equal(heard.frames[0]?.toString(), "a page, please");
      for (const connection of [urgent, bulk, control])
        connection.close({ code: "closed", message: "enough", fatal: true });
      await until("its end", () => heard.ends.length === 1);
    }
  });
});

test("a client that says nothing, or half of something, is dropped and not handed on", async () => {
  const { listener, taken, accepted } = await openSorted({});
  for (const said of ["", "GET /v1/urg"]) {
    const socket = connectTcp(listener.port, "127.0.0.1");
    await once(socket, "connect");
    if (said !== "") socket.write(said);
    socket.end();
    await once(socket.resume(), "close");
  }
  assert.deepEqual([taken, accepted], [[], []]);
});
