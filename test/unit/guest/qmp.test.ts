import { strict as assert } from "node:assert";
import { afterEach, describe, it } from "node:test";
import { realClock } from "../../../src/base/index.js";
import { GuestError } from "../../../src/guest/index.js";
import { MAX_QMP_LINE_BYTES } from "../../../src/guest/limits.js";
import { QmpClient, type QmpEvent } from "../../../src/guest/qmp.js";
import { FakeQmp } from "../../support/fake-qmp.js";

interface Session {
  fake: FakeQmp;
  client: QmpClient;
  events: QmpEvent[];
  ended: Promise<GuestError>;
}

const opened: (() => void)[] = [];
afterEach(() => {
  for (const close of opened.splice(0)) close();
});

async function openSession(options: Parameters<typeof FakeQmp.open>[0] = {}): Promise<Session> {
  const fake = await FakeQmp.open(options);
  opened.push(() => fake.close());
  const events: QmpEvent[] = [];
  let onEnd: (reason: GuestError) => void = () => {};
  const ended = new Promise<GuestError>((resolve) => {
    onEnd = resolve;
  });
  const client = await QmpClient.connect({
    path: fake.path,
    clock: realClock,
    deadlineMs: 2000,
    onEvent: (event) => events.push(event),
    onEnd,
  });
  opened.push(() => client.close());
  return { fake, client, events, ended };
}

function answerTo(command: string, text: (id: number) => string) {
  return { answer: (execute: string, id: number) => (execute === command ? text(id) : undefined) };
}

const hasCode = (code: string) => (error: unknown) => error instanceof GuestError && error.code === code;

describe("the control connection", () => {
  it("reads the version and negotiates before anything else", async () => {
    const { client, fake } = await openSession();
    assert.deepEqual(client.version, { major: 7, minor: 2, micro: 22 });
    assert.deepEqual(
      fake.commands.map(({ execute }) => execute),
      ["qmp_capabilities"],
    );
  });

  it("gives each command its own answer, whatever their order", async () => {
    const { client, fake } = await openSession();
    const answers = Promise.all([client.execute("first"), client.execute("second", { a: 1 })]);
    while (fake.commands.length < 3) await new Promise((resolve) => setImmediate(resolve));
    const [, first, second] = fake.commands;
    assert.deepEqual(second?.arguments, { a: 1 });
    assert.deepEqual(Object.keys(first ?? {}), ["execute", "id"], "arguments that are empty are not said");
    fake.send(`{"return": "2", "id": ${second?.id}}\r\n{"return": "1", "id": ${first?.id}}\r\n`);
    assert.deepEqual(await answers, ["1", "2"]);
  });

  it("understands what comes byte by byte", async () => {
    const { client, fake, events } = await openSession();
    const answer = client.execute("query-status");
    while (fake.commands.length < 2) await new Promise((resolve) => setImmediate(resolve));
    await fake.sendBytewise(
      `{"timestamp": {"seconds": 1795232196, "microseconds": 484744}, "event": "STOP"}\r\n` +
        `{"return": {"status": "gestoppt ü"}, "id": ${fake.commands[1]?.id}}\r\n`,
    );
    assert.deepEqual(await answer, { status: "gestoppt ü" });
    assert.deepEqual(events, [{ name: "STOP", data: undefined, atUs: 1795232196484744 }]);
  });

  it("tells why the emulator refuses a command", async () => {
    const refusal = (id: number) =>
      `{"error": {"class": "GenericError", "desc": "no such port"}, "id": ${id}}\n`;
    const { client } = await openSession(answerTo("remove", refusal));
    await assert.rejects(client.execute("remove"), (error) => {
      assert.ok(hasCode("command-failed")(error));
      assert.match((error as Error).message, /refused remove: no such port/);
      return true;
    });
    assert.ok(client.open);
  });

  it("gives up on a command after its deadline and drops the late answer", async () => {
    const { client, fake } = await openSession(answerTo("quick", (id) => `{"return": {}, "id": ${id}}\n`));
    await assert.rejects(client.execute("slow", {}, { deadlineMs: 10 }), hasCode("timeout"));
    while (fake.commands.length < 2) await new Promise((resolve) => setImmediate(resolve));
    fake.send(`{"return": {}, "id": ${fake.commands[1]?.id}}\n`);
    assert.deepEqual(await client.execute("quick"), {});
  });

  it("takes an answer of the human monitor only as text", async () => {
    const { client } = await openSession(
      answerTo("human-monitor-command", (id) => `{"return": {}, "id": ${id}}\n`),
    );
    await assert.rejects(client.executeHuman("info"), hasCode("protocol"));
  });

  it("fails what waits when the emulator hangs up", async () => {
    const { client, fake, ended } = await openSession();
    const waiting = client.execute("query-status");
    fake.hangUp();
    await assert.rejects(waiting, hasCode("gone"));
    assert.equal((await ended).code, "gone");
    await assert.rejects(client.execute("query-status"), hasCode("gone"));
  });

  it("fails when nobody listens", async () => {
    const options = { clock: realClock, deadlineMs: 1000, onEvent() {}, onEnd() {} };
    await assert.rejects(QmpClient.connect({ ...options, path: "/nonexistent/qmp.sock" }), hasCode("gone"));
  });

  it("fails when the greeting does not come", async () => {
    const fake = await FakeQmp.open({ greeting: "\r\n" });
    opened.push(() => fake.close());
    const options = { clock: realClock, deadlineMs: 20, onEvent() {}, onEnd() {} };
    await assert.rejects(QmpClient.connect({ ...options, path: fake.path }), hasCode("timeout"));
  });

  it("does not tell of the end it was asked for", async () => {
    const { client, ended } = await openSession();
    const waiting = assert.rejects(client.execute("query-status"), hasCode("gone"));
    client.close();
    client.close();
    await waiting;
    assert.equal(
      await Promise.race([ended, new Promise((resolve) => setImmediate(() => resolve("quiet")))]),
      "quiet",
    );
  });
});

describe("what ends the control connection", () => {
  const violations: [string, string][] = [
    ["a line that is not JSON", "{]\n"],
    ["a line that is no object", "42\n"],
    ["null", "null\n"],
    ["an answer to no command", `{"return": {}, "id": 99}\n`],
    ["an answer without a number", `{"return": {}}\n`],
    ["an answer that is neither", `{"id": 2}\n`],
    ["an answer that is both", `{"return": {}, "error": {"class": "a", "desc": "b"}, "id": 2}\n`],
    ["a malformed error", `{"error": "no", "id": 2}\n`],
    ["an event without its time", `{"event": "STOP"}\n`],
    ["an event whose name is no text", `{"event": 1, "timestamp": {"seconds": 1, "microseconds": 1}}\n`],
    ["a line without an end", "x".repeat(MAX_QMP_LINE_BYTES + 1)],
  ];
  for (const [what, bytes] of violations) {
    it(`is ${what}`, async () => {
      const { client, fake, ended } = await openSession();
      const waiting = assert.rejects(client.execute("query-status"), hasCode("protocol"));
      fake.send(bytes);
      await waiting;
      assert.equal((await ended).code, "protocol");
      assert.ok(!client.open);
    });
  }

  it("is a greeting that is none", async () => {
    const fake = await FakeQmp.open({ greeting: `{"return": {}}\r\n` });
    opened.push(() => fake.close());
    const options = { clock: realClock, deadlineMs: 1000, onEvent() {}, onEnd() {} };
    await assert.rejects(QmpClient.connect({ ...options, path: fake.path }), hasCode("protocol"));
  });
});
