import assert from "node:assert/strict";
import { existsSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { CodedError, deferred, realClock } from "../../../src/base/index.js";
import { dial, LaneError, type Hello } from "../../../src/lane/index.js";
import { KEY, openListener, PATIENCE_MS, Recorder, until, withDirectory } from "../../support/lane-pair.js";

const CONTROL = { purpose: "control", role: "client" } as const;

function dialControl(url: string, key: Buffer | undefined = KEY) {
  return dial({ url, hello: CONTROL, key, clock: realClock, deadlineMs: PATIENCE_MS });
}

test("with a key on both sides, over TCP and over a unix socket", async () => {
  await withDirectory(async (directory) => {
    for (const address of [{ host: "127.0.0.1", port: 0 }, { path: join(directory, "agent.sock") }]) {
      let asked: Hello | undefined;
      const { listener, url, accepted } = await openListener({
        address,
        key: KEY,
        authorise: (hello) => (asked = hello),
      });
      const client = await dialControl(url, KEY);
      await until("the listener's end", () => accepted.length === 1);
      assert.equal(asked?.purpose, "control");
      assert.deepEqual(accepted[0]?.hello, asked);
      assert.equal(listener.port === 0, "path" in address);
      const owner = new Recorder();
      client.attach(owner.handlers);
      const server = new Recorder();
      accepted[0]?.attach(server.handlers);
      await listener.close();
      await until("both ends", () => owner.ends.length === 1 && server.ends.length === 1);
      assert.deepEqual(owner.ends[0], { code: "closed", message: "the agent is stopping", fatal: false });
      await listener.close();
    }
  });
});

test("whoever has another key or none is refused for good", async () => {
  const other = Buffer.from("another key for the tests");
  for (const key of [other, undefined]) {
    const { listener, url, accepted } = await openListener();
    const attempt = dial({ url, hello: CONTROL, key, clock: realClock, deadlineMs: PATIENCE_MS });
    await assert.rejects(attempt, { code: "unauthenticated", fatal: true });
    assert.equal(accepted.length, 0);
    await listener.close();
  }
});

test("what authorise throws reaches the client", async () => {
  class OtherRoomError extends CodedError<"draining"> {}
  const cases: [Error, { code: string; fatal: boolean }][] = [
    [new LaneError("unknown-transfer", "no such transfer"), { code: "unknown-transfer", fatal: true }],
    [new LaneError("closed", "not yet"), { code: "closed", fatal: false }],
    [new OtherRoomError("draining", "this agent is draining"), { code: "refused", fatal: true }],
  ];
  for (const [thrown, expected] of cases) {
    const { listener, url, accepted } = await openListener({
      authorise: () => {
        throw thrown;
      },
    });
    await assert.rejects(dialControl(url), (error) => {
      assert.ok(error instanceof LaneError);
      assert.deepEqual({ code: error.code, fatal: error.fatal }, expected);
      assert.ok(error.message.includes(thrown.message) && error.message.includes(url));
      return true;
    });
    assert.equal(accepted.length, 0);
    await listener.close();
  }
});

test("a coded error from the new owner ends the connection for good", async () => {
  const { listener, url } = await openListener({
    onConnection: () => {
      throw new LaneError("unknown-transfer", "it has just ended");
    },
  });
  const client = await dialControl(url);
  const owner = new Recorder();
  client.attach(owner.handlers);
  await until("the end", () => owner.ends.length === 1);
  assert.deepEqual(owner.ends, [{ code: "unknown-transfer", message: "it has just ended", fatal: true }]);
  await listener.close();
});

test("a unix socket is its owner's alone, and is gone after close", async () => {
  await withDirectory(async (directory) => {
    const path = join(directory, "agent.sock");
    const { listener } = await openListener({ address: { path } });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await assert.rejects(openListener({ address: { path } }), {
      code: "bad-address",
      message: /another process listens/,
    });
    assert.ok(existsSync(path), "the one who listens keeps its socket");
    await listener.close();
    assert.ok(!existsSync(path));
  });
});

test("a unix socket that nobody listens on is replaced; anything else is left alone", async () => {
  await withDirectory(async (directory) => {
    const path = join(directory, "agent.sock");
    await leaveStaleSocket(path);
    assert.ok(existsSync(path));
    const { listener, url } = await openListener({ address: { path } });
    (await dialControl(url)).close({ code: "closed", message: "enough", fatal: false });
    await listener.close();
    writeFileSync(path, "somebody's notes");
    await assert.rejects(openListener({ address: { path } }), {
      code: "bad-address",
      message: /not a socket/,
    });
    assert.equal(statSync(path).size, 16);
  });
});

test("a port without certificates asks for a key, and is on loopback", async () => {
  for (const options of [
    { key: undefined },
    { address: { host: "0.0.0.0", port: 0 } },
    { address: { host: "::", port: 0 } },
  ]) {
    await assert.rejects(openListener(options), { code: "bad-address", message: /only listened on with/ });
  }
});

test("an address that cannot be listened on", async () => {
  const { listener } = await openListener();
  for (const address of [
    { host: "127.0.0.1", port: listener.port },
    { host: "192.0.2.1", port: 0 },
    { path: "/nowhere/at/all.sock" },
    { path: "relative.sock" },
  ]) {
    await assert.rejects(openListener({ address }), { code: "bad-address", fatal: true });
  }
  await listener.close();
});

/** A socket file as a killed process leaves it: Node removes its own, so it is made under another name and moved. */
async function leaveStaleSocket(path: string): Promise<void> {
  const server = createServer();
  const listening = deferred<void>();
  server.listen(`${path}.first`, listening.resolve);
  await listening.promise;
  renameSync(`${path}.first`, path);
  const closed = deferred<void>();
  server.close((error) => (error === undefined ? closed.resolve() : closed.reject(error)));
  await closed.promise;
}
