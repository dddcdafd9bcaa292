import assert from "node:assert/strict";
import { once } from "node:events";
import { appendFileSync, copyFileSync, readFileSync } from "node:fs";
import { connect as connectTls, createServer as createTlsServer, type ConnectionOptions } from "node:tls";
import { test } from "node:test";
import type { AddressInfo } from "node:net";
import { realClock, silentLog, type AccessRole, type Clock } from "../../src/base/index.js";
import { CREDENTIALS_POLL_MS, HANDSHAKE_DEADLINE_MS, MAX_HALF_OPEN } from "../../src/lane/limits.js";
import { Credentials, dial, LaneError, type LaneErrorCode } from "../../src/lane/index.js";
import { TestAuthority } from "../support/certificates.js";
import { ManualClock } from "../support/lane-clock.js";
import { openListener, PATIENCE_MS, Recorder, settle, until } from "../support/lane-pair.js";
import { RawClient, upgradeRequest } from "../support/lane-raw.js";

const LANE = { purpose: "urgent", role: "peer", transfer: 1, epoch: 1 } as const;
const CONTROL = { purpose: "control", role: "client" } as const;

const ours = new TestAuthority();
const others = new TestAuthority();
const agent = ours.credentials("agent");

function dialAs(
  url: string,
  credentials: Credentials | undefined,
  options: { hello?: typeof LANE | typeof CONTROL; clock?: Clock } = {},
) {
  const { hello = LANE, clock = realClock } = options;
  return dial({ url, hello, credentials, clock, deadlineMs: PATIENCE_MS });
}

async function refuses(attempt: Promise<unknown>, code: LaneErrorCode, pattern: RegExp): Promise<void> {
  await assert.rejects(attempt, (error) => {
    assert.ok(error instanceof LaneError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, pattern);
    // Certificates can be mended while a migrated guest waits for its memory.
    assert.equal(error.fatal, false);
    return true;
  });
}

/** Says something over TLS as no agent would, and returns what was answered until the end. */
async function answerOf(port: number, options: ConnectionOptions, request: string): Promise<string> {
  const socket = connectTls({ host: "127.0.0.1", port, rejectUnauthorized: false, ...options });
  let answer = "";
  socket.on("data", (chunk) => (answer += chunk.toString("latin1")));
  socket.on("error", (error) => (answer += `error ${error.message}`));
  socket.once("secureConnect", () => socket.write(request));
  await until("the end", () => socket.closed);
  return answer;
}

test("each side knows who the other is", async () => {
  const { listener, url, accepted } = await openListener({ credentials: agent });
  const connection = await dialAs(url, ours.credentials("hostb"));
  await until("the listener's end", () => accepted.length === 1);
  assert.deepEqual(connection.identity, { kind: "certificate", name: "O=Ramet, CN=agent", roles: ["peer"] });
  assert.deepEqual(accepted[0]?.identity, {
    kind: "certificate",
    name: "O=Ramet, CN=hostb",
    roles: ["peer"],
  });
  const [near, far] = [new Recorder(), new Recorder()];
  connection.attach(near.handlers);
  accepted[0]?.attach(far.handlers);
  const frame = Buffer.alloc(900_000, 7);
  accepted[0]?.send(frame);
  connection.send(Buffer.from("hello"));
  await until("both messages", () => near.frames.length + far.frames.length === 2);
  assert.ok(near.frames[0]?.equals(frame));
  await listener.close();
  await until("the end", () => near.ends.length === 1);
});

test("clients whose certificate is no good are told why", async () => {
  const { listener, url, accepted } = await openListener({ credentials: agent });
  const gone = ours.credentials("gone");
  ours.revoke("gone");
  agent.reload();
  const cases: [string, Credentials, LaneErrorCode, RegExp][] = [
    ["another authority's", foreign(), "certificate-untrusted", /CN=stranger is not of an authority/],
    ["revoked", gone, "certificate-revoked", /CN=gone was revoked/],
    ["expired", longAgo(), "certificate-expired", /CN=old has expired/],
  ];
  for (const [, credentials, code, pattern] of cases) await refuses(dialAs(url, credentials), code, pattern);
  await refuses(dialAs(url, undefined), "certificate-missing", /has none to show/);
  const expired = ours.credentials("old", { expired: true });
  await refuses(dialAs(url, expired), "certificate-expired", /shown by this side/);
  const bare = await answerOf(listener.port, {}, upgradeRequest("/v1/lane"));
  assert.match(bare, /^HTTP\/1\.1 403 /);
  assert.match(decodeURIComponent(bare), /ramet-refusal: certificate-missing: /);
  assert.equal(accepted.length, 0);
  await listener.close();

  /** Trusts our agent, and shows what another authority has signed. */
  function foreign(): Credentials {
    const files = others.files("stranger");
    return Credentials.load(
      { certificate: files.certificate, key: files.key, authority: ours.files("agent").authority },
      { clock: realClock, log: silentLog },
    );
  }

  /** Does not notice that its own certificate has ended, for its clock stands still. */
  function longAgo(): Credentials {
    const credentials = ours.credentials("old", { expired: true });
    Object.defineProperty(credentials, "endsAtMs", { value: Number.MAX_SAFE_INTEGER });
    return credentials;
  }
});

test("roles: an agent is no client, a person is no agent, and whoever has none is neither", async () => {
  const { listener, url, accepted } = await openListener({ credentials: agent });
  const cases: [AccessRole[], typeof LANE | typeof CONTROL, RegExp | undefined][] = [
    [["peer"], CONTROL, /lacks one of the roles observe, operate and admin, and has peer/],
    [["admin"], LANE, /lacks the role peer, and has admin/],
    [["observe"], CONTROL, undefined],
    [["peer", "operate"], CONTROL, undefined],
    [["peer", "operate"], LANE, undefined],
  ];
  for (const [index, [roles, hello, problem]] of cases.entries()) {
    const credentials = ours.credentials(`role-${index}`, { roles });
    const attempt = dialAs(url, credentials, { hello });
    if (problem === undefined) (await attempt).close({ code: "closed", message: "enough", fatal: false });
    else await refuses(attempt, "certificate-role", problem);
  }
  assert.equal(accepted.length, 3);
  await listener.close();
});

test("servers that are not the agent that was dialled are found out before anything is said", async () => {
  const me = ours.credentials("me");
  const elsewhere = await openListener({
    credentials: ours.credentials("elsewhere", { addresses: ["192.0.2.9"] }),
  });
  await refuses(dialAs(elsewhere.url, me), "certificate-name", /for another host: .*127\.0\.0\.1/);
  const foreign = await openListener({ credentials: others.credentials("foreign") });
  await refuses(dialAs(foreign.url, me), "certificate-untrusted", /not of an authority that is trusted/);
  const old = await openListener({ credentials: ours.credentials("old-agent", { expired: true }) });
  await refuses(dialAs(old.url, me), "certificate-expired", /agent's certificate has expired/);
  const thief = await openListener({ credentials: ours.credentials("thief") });
  ours.revoke("thief");
  me.reload();
  await refuses(dialAs(thief.url, me), "certificate-revoked", /agent's certificate was revoked/);
  const person = await openListener({ credentials: ours.credentials("person", { roles: ["admin"] }) });
  await refuses(dialAs(person.url, me), "certificate-untrusted", /not for this use/);
  const odd = await openListener({ credentials: agent });
  const wrong = dial({
    url: odd.url,
    hello: LANE,
    credentials: me,
    clock: realClock,
    deadlineMs: PATIENCE_MS,
    requireIdentity: ({ name }) => {
      throw new LaneError("certificate-role", `${name} is not the parent's host`);
    },
  });
  await refuses(wrong, "certificate-role", /CN=agent is not the parent's host/);
  for (const { listener, accepted } of [elsewhere, foreign, old, thief, person, odd]) {
    assert.equal(accepted.length, 0);
    await listener.close();
  }
});

test("older TLS, no TLS and what is no TLS at all", async () => {
  const { listener, accepted } = await openListener({ credentials: agent });
  const { certificate, key } = ours.files("hostb");
  const older = await answerOf(
    listener.port,
    { maxVersion: "TLSv1.2", cert: readFileSync(certificate), key: readFileSync(key) },
    upgradeRequest("/v1/lane"),
  );
  assert.match(older, /^error .*protocol version/);
  for (const first of [
    upgradeRequest("/v1/lane"),
    "\u0016\u0003\u0001\u0000\u0005rubbish",
    "x".repeat(70_000),
  ]) {
    const client = new RawClient(listener.port, first);
    await until("the end", () => client.closed);
    assert.doesNotMatch(client.received, /HTTP/);
  }
  await assert.rejects(dialAs(`ws://127.0.0.1:${listener.port}`, undefined), { fatal: false });
  const plain = await openListener();
  await refuses(
    dialAs(plain.url.replace("ws:", "wss:"), ours.credentials("hostb")),
    "unreachable",
    /cannot be reached/,
  );
  const silent = createTlsServer({ maxVersion: "TLSv1.2", ...agent.options, minVersion: "TLSv1.2" });
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo;
  await refuses(dialAs(`wss://127.0.0.1:${port}`, ours.credentials("hostb")), "tls-failed", /TLS 1\.3/);
  silent.close();
  assert.equal(accepted.length, 0);
  await plain.listener.close();
  await listener.close();
});

test("who is slow in the TLS handshake is dropped at the deadline, and a flood of them keeps nobody out", async () => {
  const clock = new ManualClock();
  const credentials = ours.credentials("slow", { clock });
  const { listener, url, accepted } = await openListener({ credentials, clock });
  const flood = Array.from(
    { length: MAX_HALF_OPEN + 10 },
    () => new RawClient(listener.port, "\u0016\u0003\u0001"),
  );
  await until("the oldest are dropped", () => flood.filter(({ closed }) => closed).length === 10);
  const connection = await dialAs(url, ours.credentials("hostb"));
  await until("the listener's end", () => accepted.length === 1);
  assert.equal(flood.filter(({ closed }) => closed).length, 11);
  clock.advance(HANDSHAKE_DEADLINE_MS);
  await until("the end of all", () => flood.every(({ closed }) => closed));
  const owner = new Recorder();
  connection.attach(owner.handlers);
  await settle();
  assert.deepEqual(owner.ends, [], "a finished handshake has no deadline any more");
  connection.close({ code: "closed", message: "enough", fatal: false });
  await listener.close();
  await until("no timer", () => clock.pending === 0);
});

test("a TLS session is never taken up again", async () => {
  const { listener } = await openListener({ credentials: agent });
  const { certificate, key } = ours.files("hostb");
  const options = { cert: readFileSync(certificate), key: readFileSync(key) };
  let session: Buffer | undefined;
  const first = connectTls({ host: "127.0.0.1", port: listener.port, rejectUnauthorized: false, ...options });
  first.on("error", () => {});
  first.on("session", (ticket: Buffer) => (session = ticket));
  first.once("secureConnect", () => first.write(upgradeRequest("/v1/nowhere")));
  first.resume();
  await until("the end", () => first.closed);
  if (session !== undefined) {
    const second = connectTls({ host: "127.0.0.1", port: listener.port, rejectUnauthorized: false, session });
    second.on("error", () => {});
    await once(second, "secureConnect");
    assert.equal(second.isSessionReused(), false);
    second.destroy();
  }
  await listener.close();
});

test("a certificate that is revoked while its connection is open ends it, on both sides and without a restart", async () => {
  const clock = new ManualClock();
  const credentials = ours.credentials("lasting", { clock });
  credentials.watch();
  const { listener, url, accepted } = await openListener({ credentials });
  const soon = await dialAs(url, ours.credentials("soon-gone"));
  const stays = await dialAs(url, ours.credentials("stays"));
  const mine = ours.credentials("mine", { clock });
  mine.watch();
  const there = await openListener({ credentials: ours.credentials("there") });
  const dialled = await dialAs(there.url, mine);
  await until("the listener's ends", () => accepted.length === 2);
  const owners = [soon, stays, dialled].map((connection) => {
    const owner = new Recorder();
    connection.attach(owner.handlers);
    return owner;
  });
  for (const connection of accepted) connection.attach(new Recorder().handlers);
  clock.advance(CREDENTIALS_POLL_MS);
  ours.revoke("soon-gone");
  ours.revoke("there");
  clock.advance(CREDENTIALS_POLL_MS);
  await until("two ends", () => owners[0]?.ends.length === 1 && owners[2]?.ends.length === 1);
  assert.equal(owners[0]?.ends[0]?.code, "certificate-revoked");
  assert.equal(owners[2]?.ends[0]?.code, "certificate-revoked");
  assert.deepEqual(owners[1]?.ends, []);
  stays.close({ code: "closed", message: "enough", fatal: false });
  credentials.close();
  mine.close();
  await listener.close();
  await there.listener.close();
});

test("a renewed certificate counts without a restart, and files that cannot be used do not", async () => {
  const clock = new ManualClock();
  const files = ours.files("renewed");
  const credentials = Credentials.load(files, { clock, log: silentLog });
  credentials.watch();
  const { listener, url } = await openListener({ credentials });
  const dialler = ours.credentials("hostb");
  (await dialAs(url, dialler)).close({ code: "closed", message: "enough", fatal: false });
  copyFileSync(files.key, `${files.key}.kept`);
  appendFileSync(files.certificate, "\n");
  copyFileSync(ours.files("hostb").key, files.key);
  clock.advance(CREDENTIALS_POLL_MS);
  (await dialAs(url, dialler)).close({ code: "closed", message: "enough", fatal: false });
  assert.throws(() => credentials.reload(), {
    code: "bad-credentials",
    message: /not the key of the certificate/,
  });
  ours.files("renewed", { renew: true, addresses: ["192.0.2.1"] });
  clock.advance(CREDENTIALS_POLL_MS);
  await refuses(dialAs(url, dialler), "certificate-name", /another host/);
  credentials.close();
  await listener.close();
  assert.equal(clock.pending, 0);
});
