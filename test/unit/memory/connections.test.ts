import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { cutConnections } from "../../../src/memory/index.js";

test("connections that a process has accepted at a port end, and it listens there still", async () => {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  const elsewhere = createServer().listen(0, "127.0.0.1");
  await Promise.all([once(server, "listening"), once(elsewhere, "listening")]);
  const dial = async (to: typeof server): Promise<Socket> => {
    const accepted = once(to, "connection");
    const socket = connect((to.address() as AddressInfo).port, "127.0.0.1");
    await accepted;
    return socket;
  };
  const [first, second, other] = [await dial(server), await dial(server), await dial(elsewhere)];
  const hostPort = (server.address() as AddressInfo).port;
  const ends = [first, second].map((socket) => once(socket.resume(), "end"));
  assert.equal(cutConnections(process.pid, [{ hostPort }]), 2);
  await Promise.all(ends);
  const again = await dial(server);
  assert.equal(other.readyState, "open", "at another port");
  assert.equal(cutConnections(process.pid, []), 0);
  for (const socket of [first, second, other, again]) socket.destroy();
  server.close();
  elsewhere.close();
});

test("a process that has ended has none", () => {
  assert.equal(cutConnections(2 ** 22 + 1, [{ hostPort: 1 }]), 0);
});
