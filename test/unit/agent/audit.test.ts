import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { CodedError, LOCAL_IDENTITY, silentLog, type Identity } from "../../../src/base/index.js";
import { encodeMessage, type AuditEntry } from "../../../src/control/index.js";
import type { Connection } from "../../../src/lane/index.js";
import { auditEntry } from "../../../src/agent/api/audit.js";
import { Sessions } from "../../../src/agent/api/sessions.js";
import { EventHub } from "../../../src/agent/events.js";
import { AuditLogs } from "../../../src/agent/store/audit-logs.js";
import { AUDIT_FILES, AuditLog, MAX_AUDIT_BYTES } from "../../../src/agent/store/audit-log.js";
import { channelPair, clientHandlers, GUEST, ManualClock } from "../control/support.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-audit-"));
after(() => rmSync(scratch, { recursive: true }));

class Taken extends CodedError<"name-taken"> {}

/** Sends requests as somebody over a connection of his, and returns the lines they left. */
async function linesOf(identity: Identity, requests: object[], role: "client" | "peer" = "client") {
  const directory = mkdtempSync(join(scratch, "a-"));
  const audit = new AuditLogs(join(directory, "audit.log"), silentLog);
  const { near, far } = channelPair();
  const handlers = clientHandlers({
    "guest.list": () => Promise.resolve({ guests: [] }),
    "guest.kill": () => Promise.resolve({ guest: GUEST }),
    "guest.run": () => Promise.reject(new Taken("name-taken", "there is a guest web")),
  });
  const peer = { "peer.cancel": () => Promise.resolve({}) } as never;
  const clock = new ManualClock();
  const sessions = new Sessions({
    client: handlers,
    peer,
    events: new EventHub(),
    audit,
    clock,
    log: silentLog,
  });
  sessions.take(
    Object.assign(far, { hello: { role }, identity, remote: "192.0.2.7:1" }) as unknown as Connection,
  );
  near.attach({ onFrame: () => {}, onEnd: () => {} });
  for (const [id, request] of requests.entries()) near.send(encodeMessage({ id, ...request }));
  await new Promise((resolve) => setImmediate(resolve));
  sessions.close();
  return { directory, text: readFileSync(join(directory, "audit.log"), "utf8"), entries: audit.last(100) };
}

describe("the audit log", () => {
  test("says how many bytes a command brought, and not which", () => {
    const call = {
      identity: LOCAL_IDENTITY,
      role: "peer" as const,
      method: "peer.start",
      params: { transfer: 1, deviceState: Buffer.alloc(23_000, 7), token: "hunter2" },
      error: undefined,
      tookUs: 1000,
    };
    const entry = auditEntry(call, { clock: new ManualClock(), remote: "192.0.2.7:1" });
    assert.equal(entry.params, '{"transfer":1,"deviceState":"23000 bytes","token":"…"}');
  });

  test("has who did what, and how it came out, and no secrets", async () => {
    const run = {
      method: "guest.run",
      params: { name: "web", kernel: "/k", append: "root=/dev/vda password=hunter2" },
    };
    const { entries, text, directory } = await linesOf(LOCAL_IDENTITY, [
      { method: "guest.list" },
      { method: "guest.kill", params: { name: "web" } },
      run,
      { method: "guest.console.input", params: { console: 1, data: Buffer.from("hunter2") } },
    ]);
    assert.deepEqual(
      entries.map(({ method, outcome, who, from }) => [method, outcome, who, from]),
      [
        ["guest.kill", "done", LOCAL_IDENTITY.name, "192.0.2.7:1"],
        ["guest.run", "name-taken", LOCAL_IDENTITY.name, "192.0.2.7:1"],
      ],
    );
    assert.equal(entries[0]?.params, '{"name":"web"}');
    assert.doesNotMatch(text, /hunter2/);
    assert.equal(statSync(join(directory, "audit.log")).mode & 0o777, 0o600);
  });

  test("has what was refused for want of a role, also where only looking was refused", async () => {
    const identity: Identity = { kind: "certificate", name: "CN=eve", roles: ["observe"] };
    const { entries } = await linesOf(identity, [
      { method: "guest.list" },
      { method: "guest.logs", params: { name: "web" } },
      { method: "agent.audit" },
    ]);
    assert.deepEqual(
      entries.map(({ method, outcome, shown, who }) => [method, outcome, shown, who]),
      [
        ["guest.logs", "forbidden", "certificate", "CN=eve"],
        ["agent.audit", "forbidden", "certificate", "CN=eve"],
      ],
    );
  });

  test("has no tokens of transfers", async () => {
    const identity: Identity = { kind: "certificate", name: "CN=b", roles: ["peer"] };
    const prepare = { method: "peer.prepare", params: { transfer: 1, token: "secretsecretsecret" } };
    const { entries, text } = await linesOf(identity, [prepare], "peer");
    assert.equal(entries[0]?.outcome, "bad-params");
    assert.doesNotMatch(text, /secretsecret/);
  });

  const entry = (method: string): AuditEntry => ({
    at: "2026-01-01T00:00:00.000Z",
    who: "CN=a",
    shown: "certificate",
    from: "x",
    role: "client",
    method,
    params: "y".repeat(2048),
    outcome: "done",
    tookMs: 1,
  });

  test("is bounded, and its end can be read across files", () => {
    const directory = mkdtempSync(join(scratch, "b-"));
    const path = join(directory, "audit.log");
    const audit = new AuditLog(path, silentLog);
    const lines = Math.ceil(((AUDIT_FILES + 1) * MAX_AUDIT_BYTES) / 2048);
    for (let line = 0; line < lines; line += 1) audit.append(entry(`m${line}`));
    const files = readdirSync(directory).sort();
    assert.deepEqual(files, ["audit.log", ...[1, 2, 3, 4].map((number) => `audit.log.${number}`)]);
    for (const file of files) assert.ok(statSync(join(directory, file)).size <= MAX_AUDIT_BYTES);
    const last = audit.last(1000);
    assert.equal(last.length, 1000);
    assert.deepEqual([last[0]?.method, last[999]?.method], [`m${lines - 1000}`, `m${lines - 1}`]);
    const next = new AuditLog(path, silentLog);
    next.append(entry("after"));
    assert.equal(next.last(1)[0]?.method, "after");
  });

  test("of who runs the host is not pushed out by tenants, and both are read together", () => {
    const directory = mkdtempSync(join(scratch, "d-"));
    const audit = new AuditLogs(join(directory, "audit.log"), silentLog);
    const at = (second: number) => ({ at: new Date(second * 1000).toISOString() });
    audit.append({ ...entry("guest.remove"), ...at(1) }, undefined);
    const lines = Math.ceil(((AUDIT_FILES + 1) * MAX_AUDIT_BYTES) / 2048);
    for (let line = 0; line < lines; line += 1) audit.append({ ...entry("guest.migrate"), ...at(2) }, "acme");
    audit.append({ ...entry("guest.kill"), ...at(3) }, undefined);
    const all = audit.last(lines).map(({ method }) => method);
    assert.deepEqual([all[0], all[1], all.at(-1)], ["guest.remove", "guest.migrate", "guest.kill"]);
    assert.deepEqual(
      audit.last(2).map(({ method }) => method),
      ["guest.migrate", "guest.kill"],
    );
  });

  test("survives a line that a crash cut short, and a file that cannot be written", () => {
    const directory = mkdtempSync(join(scratch, "c-"));
    const path = join(directory, "audit.log");
    appendFileSync(path, `${JSON.stringify(entry("whole"))}\n{"at":"20`);
    const audit = new AuditLog(path, silentLog);
    assert.deepEqual(
      audit.last(5).map(({ method }) => method),
      ["whole"],
    );
    const blocked = join(directory, "blocked");
    mkdirSync(blocked);
    const unwritable = new AuditLog(blocked, silentLog);
    unwritable.append(entry("lost"));
  });
});
