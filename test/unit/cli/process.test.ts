import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { LOCAL_IDENTITY, realClock, silentLog } from "../../../src/base/index.js";
import { MAX_LOG_LINES, RpcServerSession } from "../../../src/control/index.js";
import { Credentials, Listener } from "../../../src/lane/index.js";
import { filesIn } from "../../support/certificates.js";
import { clientHandlers, GUEST } from "../control/support.js";

/** The real program, in a process of its own, with a fake agent behind real sockets. */
const MAIN = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));
const KEY = "0123456789abcdef0123456789abcdef";

const directory = mkdtempSync(join(tmpdir(), "ramet-cli-"));
const socket = join(directory, "agent.sock");
const keyFile = join(directory, "key");
const typed: string[] = [];
let onTyped = () => {};
let onListed = () => {};
const listeners: Listener[] = [];

before(async () => {
  writeFileSync(keyFile, `${KEY}\n`, { mode: 0o600 });
  const handlers = clientHandlers({
    "guest.list": () => Promise.resolve({ guests: [GUEST] }),
    "guest.logs": () => Promise.resolve({ lines: Array<string>(MAX_LOG_LINES).fill("x".repeat(200)) }),
    "transfer.list": () => {
      onListed();
      return Promise.resolve({ transfers: [] });
    },
    "guest.console.open": () => Promise.resolve({ console: 1 }),
    "guest.console.input": ({ data }, { session }) => {
      typed.push(Buffer.from(data).toString());
      onTyped();
      session.sendEvent("console", { console: 1, data: Buffer.from("bye"), end: "the guest stopped" });
      return Promise.resolve({});
    },
  });
  const shared = { clock: realClock, log: silentLog };
  const onConnection = (channel: ConstructorParameters<typeof RpcServerSession>[0]) => {
    new RpcServerSession(channel, { ...shared, identity: LOCAL_IDENTITY, role: "client", handlers });
  };
  listeners.push(
    await Listener.open({ ...shared, address: { path: socket }, onConnection }),
    await Listener.open({
      ...shared,
      address: { host: "127.0.0.1", port: 0 },
      key: Buffer.from(KEY),
      onConnection,
    }),
  );
});

after(async () => {
  await Promise.all(listeners.map((listener) => listener.close()));
  rmSync(directory, { recursive: true });
});

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(...argv: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [MAIN, ...argv], {
    env: { ...process.env, RAMET_AGENT: `unix:${socket}` },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (text: Buffer) => (stdout += text.toString()));
  child.stderr.on("data", (text: Buffer) => (stderr += text.toString()));
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
  return { child, ended };
}

test("the program speaks to an agent over its unix socket", async () => {
  const { code, stdout, stderr } = await start("list", "--json").ended;
  assert.equal(stderr, "");
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(stdout), { guests: [GUEST] });
});

test("over TCP it proves itself with the key, and is kept out without", async () => {
  const agent = `ws://127.0.0.1:${listeners[1]?.port}`;
  const good = await start("list", "-q", "--agent", agent, "--key-file", keyFile).ended;
  assert.deepEqual(good, { code: 0, stdout: "web\n", stderr: "" });
  const bad = await start("list", "--agent", agent).ended;
  assert.equal(bad.code, 3);
  assert.match(bad.stderr, /--key-file/);
});

test("with certificates an operator lists guests, and runs none", async () => {
  const pki = join(directory, "pki");
  const issue = async (...argv: string[]) => {
    const { code, stderr } = await start("pki", "issue", "--directory", pki, ...argv).ended;
    assert.equal(code, 0, stderr);
  };
  assert.equal((await start("pki", "init", "--directory", pki).ended).code, 0);
  await issue("agent", "--role", "peer", "--address", "127.0.0.1");
  await issue("op", "--role", "operate");
  const files = filesIn(join(pki, "issued", "agent"));
  const credentials = Credentials.load(files, { clock: realClock, log: silentLog });
  const listener = await Listener.open({
    clock: realClock,
    log: silentLog,
    address: { host: "127.0.0.1", port: 0 },
    credentials,
    onConnection: (connection) => {
      const { identity } = connection;
      const shared = {
        clock: realClock,
        log: silentLog,
        handlers: clientHandlers({ "transfer.list": () => Promise.resolve({ transfers: [] }) }),
      };
      new RpcServerSession(connection, { ...shared, identity, role: "client" });
    },
  });
  listeners.push(listener);
  const agent = ["--agent", `127.0.0.1:${listener.port}`, "--tls", join(pki, "issued", "op")];
  const listed = await start("transfers", ...agent).ended;
  assert.equal(listed.code, 0, listed.stderr);
  const refused = await start("run", "web", "--kernel", "/k", ...agent).ended;
  assert.equal(refused.code, 5);
  assert.match(
    refused.stderr,
    /guest.run needs the role admin; O=Ramet, CN=op has operate\n {2}have a certificate/,
  );
  const revoked = await start("pki", "revoke", "--directory", pki, "op").ended;
  assert.match(revoked.stdout, /^op [0-9A-F]+ is revoked\n/);
  credentials.reload();
  const out = await start("transfers", ...agent).ended;
  assert.equal(out.code, 3);
  assert.match(out.stderr, /certificate of O=Ramet, CN=op was revoked\n {2}ask whoever has the authority/);
});

test("nobody at the address is exit code 3", async () => {
  const { code, stderr } = await start("list", "--agent", `unix:${directory}/none.sock`).ended;
  assert.equal(code, 3);
  assert.match(stderr, /^ramet: no connection to the agent at unix:.*\n {2}is rametd running/);
});

test("SIGINT ends a waiting command with 130", async () => {
  const { child, ended } = start("watch", "--json");
  await new Promise<void>((resolve) => (onListed = resolve));
  child.kill("SIGINT");
  const { code, stderr } = await ended;
  assert.equal(code, 130);
  assert.equal(stderr, "");
});

test("a reader that goes away ends it quietly with 141", async () => {
  const { child, ended } = start("logs", "web", "-n", String(MAX_LOG_LINES));
  child.stdout?.once("data", () => child.stdout?.destroy());
  const { code, stderr } = await ended;
  assert.equal(stderr, "");
  assert.equal(code, 141);
});

test("console passes piped input on and prints what comes", async () => {
  const { child, ended } = start("console", "web");
  child.stdin?.write("uname -a\n");
  await new Promise<void>((resolve) => (onTyped = resolve));
  const { code, stdout } = await ended;
  assert.equal(code, 0);
  assert.equal(stdout, "bye");
  assert.deepEqual(typed, ["uname -a\n"]);
});
