import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { eventually } from "../support/hosts.js";
import { Proxy } from "./proxy.js";

const HOST = "127.0.0.51";
const PORT = 7181;
const TEXT = Buffer.from("a frame of some length");

/** Its end, with or without an error. */
function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

describe("the network in front of a host", () => {
  let server: Server;
  let proxy: Proxy;
  let inside: Socket[] = [];
  let received = "";
  let client: Socket;

  before(async () => {
    server = createServer((socket) => {
      inside.push(socket);
      socket.on("error", () => {});
      socket.on("data", (chunk: Buffer) => (received += chunk.toString()));
    }).listen(0, HOST);
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    proxy = await Proxy.open({ listen: { host: HOST, port: PORT }, to: { host: HOST, port } });
  });
  beforeEach(async () => {
    client = await dial();
  });
  afterEach(() => {
    client.destroy();
    proxy.clear();
    received = "";
    inside = [];
  });
  after(async () => {
    await proxy.close();
    server.close();
  });

  async function dial(): Promise<Socket> {
    const count = inside.length;
    const socket = connect(PORT, HOST);
    socket.on("error", () => {});
    await once(socket, "connect");
    await eventually("it came through", () => inside.length > count);
    return socket;
  }

  test("delivers in both directions", async () => {
    client.write(TEXT);
    await eventually("it has arrived", () => received === TEXT.toString());
    const answered = once(client, "data");
    inside[0]?.write(TEXT);
    assert.deepEqual(await answered, [TEXT]);
    assert.equal(proxy.connections[0]?.bytes, 2 * TEXT.length);
  });

  test("keeps what is stalled and delivers it afterwards, whole and in order", async () => {
    proxy.set({ stalled: true });
    client.write("one ");
    client.write("two");
    const other = await dial();
    assert.equal(received, "");
    proxy.clear();
    await eventually("it has arrived", () => received === "one two");
    other.destroy();
  });

  test("loses what is swallowed, and cuts the connection when that is over", async () => {
    proxy.set({ swallowing: true });
    client.write(TEXT);
    const closed = closeOf(client);
    await eventually("it is swallowed", () => client.bytesWritten === TEXT.length);
    proxy.clear();
    await closed;
    assert.equal(received, "");
  });

  test("delivers a part of a piece, then nothing more", async () => {
    proxy.set({ truncating: true });
    const closed = closeOf(client);
    client.write(TEXT);
    await closed;
    await eventually("a part has arrived", () => received.length > 0);
    assert.equal(received, TEXT.toString().slice(0, TEXT.length / 2));
  });

  test("delivers slowly and late, but everything", async () => {
    proxy.set({ bytesPerSecond: 1000, delayMs: 20 });
    const long = "0123456789".repeat(30);
    client.write(long);
    await eventually("it has arrived", () => received === long);
  });

  test("refuses whoever comes, and cuts whoever is there", async () => {
    proxy.set({ refusing: true });
    const closed = closeOf(client);
    proxy.cut();
    await closed;
    const refused = connect(PORT, HOST);
    refused.on("error", () => {});
    await closeOf(refused);
    assert.equal(proxy.connections.length, 0);
  });
});
