import assert from "node:assert/strict";
import { test } from "node:test";
import { CodedError } from "../../../src/base/index.js";
import type { GuestView } from "../../../src/control/index.js";
import { GUEST, TRANSFER } from "../control/support.js";
import { FakeSetting, settle } from "./support.js";

const USER_GUEST: GuestView = {
  ...GUEST,
  name: "shop",
  memoryBytes: 2 * 1024 ** 3,
  cpus: 2,
  parent: { guest: "web", host: "hosta", transfer: 7 },
  network: {
    mode: "user",
    mac: "52:54:00:00:00:01",
    forwards: [{ address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }],
  },
};

test("list prints an aligned table, names with -q, and the answer itself with --json", async () => {
  const setting = new FakeSetting({ "guest.list": () => Promise.resolve({ guests: [GUEST, USER_GUEST] }) });
  assert.equal(await setting.run("list"), 0);
  assert.equal(
    setting.stdout.text,
    "NAME  STATE    ARCHITECTURE   MEMORY  CPUS  PARENT        NETWORK\n" +
      "web   running  x86_64        256 MiB     1  -             none\n" +
      "shop  running  x86_64          2 GiB     2  web on hosta  user, 127.0.0.1:8080→80\n",
  );
  setting.stdout.text = "";
  assert.equal(await setting.run("list", "-q"), 0);
  assert.equal(setting.stdout.text, "web\nshop\n");
  setting.stdout.text = "";
  assert.equal(await setting.run("--json", "list"), 0);
  assert.deepEqual(JSON.parse(setting.stdout.text), { guests: [GUEST, USER_GUEST] });
  assert.equal(setting.stderr.text, "");
});

test("the connection is closed when a command ends", async () => {
  const setting = new FakeSetting({ "guest.show": () => Promise.resolve({ guest: GUEST }) });
  let ended = "";
  const run = setting.run("show", "web");
  await settle();
  setting.session.onEnd((end) => (ended = end.code));
  assert.equal(await run, 0);
  assert.equal(ended, "closed");
  assert.match(setting.stdout.text, /^name: {4}web\nstate: {3}running\n/);
});

test("what an agent says cannot write escape sequences to the terminal", async () => {
  const guest = { ...GUEST, append: "a\x1b[2Jb", message: "x\x07" };
  const setting = new FakeSetting({ "guest.show": () => Promise.resolve({ guest }) });
  await setting.run("show", "web");
  assert.ok(!setting.stdout.text.includes("\x1b"));
  assert.ok(!setting.stdout.text.includes("\x07"));
});

test("run turns its options into parameters", async () => {
  const seen: unknown[] = [];
  const setting = new FakeSetting({
    "guest.run": (params) => {
      seen.push(params);
      return Promise.resolve({ guest: USER_GUEST });
    },
  });
  const code = await setting.run(
    ...["run", "shop", "-k", "vmlinuz", "--initrd", "/a.cpio", "--append", "console=ttyS0"],
    ...["-m", "2G", "-c", "2", "--architecture", "aarch64", "--machine", "virt-7.2"],
    ...["-p", "8080:80,0.0.0.0:53:53/udp", "-p", "2222:22"],
  );
  assert.equal(code, 0, setting.stderr.text);
  assert.deepEqual(seen, [
    {
      name: "shop",
      kernel: `${process.cwd()}/vmlinuz`,
      initrd: "/a.cpio",
      append: "console=ttyS0",
      memoryMiB: 2048,
      cpus: 2,
      architecture: "aarch64",
      machine: "virt-7.2",
      network: {
        mode: "user",
        forwards: [
          { address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" },
          { address: "0.0.0.0", hostPort: 53, guestPort: 53, protocol: "udp" },
          { address: "127.0.0.1", hostPort: 2222, guestPort: 22, protocol: "tcp" },
        ],
      },
      disks: [],
    },
  ]);
  assert.equal(setting.stdout.text, "shop runs\n  forward  127.0.0.1:8080→80\n");
});

test("a relative kernel path is left to the agent when that is on another machine", async () => {
  const setting = new FakeSetting();
  assert.equal(await setting.run("run", "web", "-k", "vmlinuz", "--agent", "hosta:7070"), 2);
  assert.match(setting.stderr.text, /kernel must be an absolute path on the agent's machine/);
});

test("wrong usage exits with 2, one line, and what to do", async () => {
  const cases: [string[], RegExp][] = [
    [[], /^ramet: no command was given\n {2}commands: run, list, .*\n$/],
    [["lsit"], /^ramet: unknown command 'lsit' \(Did you mean list\?\)\n/],
    [["run", "web"], /^ramet: run needs --kernel, or a --disk to boot from\n/],
    [["run", "web", "-k", "x", "-m", "1.5M"], /whole MiB/],
    [["run", "web", "-k", "x", "-c", "0"], /whole number from 1 to 64/],
    [
      ["run", "web", "-k", "x", "-p", "1:2", "--network", "tap"],
      /^ramet: --forward needs --network user, not tap\n/,
    ],
    [["run", "web", "-k", "x", "--bridge", "b", "--network", "user"], /--bridge needs --network tap/],
    [["show"], /missing required argument 'name'/],
    [["cancel", "seven"], /whole number/],
    [["fork", "web", "--sweep", "slow"], /on, held/],
    [["steer", "7"], /changes nothing without/],
    [["steer", "7", "--priority", "urgent"], /high, normal, low/],
    [["steer", "7", "--rate-limit", "fast"], /number of bytes/],
    [["list", "--agent", "nowhere"], /^ramet: the agent address "nowhere" cannot be read\n {2}give unix:/],
    [["list", "--agent", "a:99999"], /cannot be read/],
    [["--json", "console", "web"], /"code":"usage".*"exitCode":2/],
    [["completion", "powershell"], /bash, zsh, fish/],
  ];
  for (const [argv, text] of cases) {
    const setting = new FakeSetting();
    assert.equal(await setting.run(...argv), 2, argv.join(" "));
    assert.match(setting.stderr.text, text);
    assert.equal(setting.stdout.text, "");
    assert.equal(setting.dialled.length, 0, "wrong usage is found before anything is dialled");
  }
});

test("help and version are no failure", async () => {
  const setting = new FakeSetting();
  assert.equal(await setting.run("--help"), 0);
  assert.match(setting.stdout.text, /Exit codes:/);
  setting.stdout.text = "";
  assert.equal(await setting.run("fork", "--help"), 0);
  assert.match(setting.stdout.text, /--agent <address>/, "the options of every command are shown");
  setting.stdout.text = "";
  assert.equal(await setting.run("help", "run"), 0);
  assert.match(setting.stdout.text, /--kernel/);
  setting.stdout.text = "";
  assert.equal(await setting.run("--version"), 0);
  assert.equal(setting.stdout.text, "9.8.7\n");
});

test("what the agent refuses becomes an exit code, with a hint", async () => {
  const cases: [string, number, RegExp][] = [
    ["no-such-guest", 4, /\n {2}ramet list shows/],
    ["not-found", 4, /ramet list/],
    ["bad-state", 5, /ramet show/],
    ["name-taken", 5, /another name/],
    ["no-room", 5, /remove a guest/],
    ["timeout", 6, /it broke/],
    ["transfer-failed", 1, /it broke/],
    ["brand-new-code", 1, /it broke/],
    ["internal", 1, /its log/],
  ];
  for (const [code, exit, text] of cases) {
    const setting = new FakeSetting({ "guest.kill": () => Promise.reject(new CodedError(code, "it broke")) });
    assert.equal(await setting.run("kill", "web"), exit, code);
    assert.match(setting.stderr.text, /^ramet: it broke\n/);
    assert.match(setting.stderr.text, text);
    setting.stderr.text = "";
    assert.equal(await setting.run("kill", "web", "--json"), exit);
    const document = JSON.parse(setting.stderr.text) as {
      error: { code: string; message: string; exitCode: number };
    };
    assert.deepEqual([document.error.code, document.error.exitCode], [code, exit]);
    assert.equal(setting.stdout.text, "");
  }
});

test("an agent that is not there, or keeps one out, exits with 3", async () => {
  const setting = new FakeSetting();
  setting.refusal = new CodedError("unreachable", "connect ENOENT");
  assert.equal(await setting.run("list"), 3);
  assert.match(
    setting.stderr.text,
    /no connection to the agent at unix:\/run\/ramet\/rametd.sock: connect ENOENT\n {2}is rametd running/,
  );
  setting.stderr.text = "";
  setting.refusal = new CodedError("unauthenticated", "a key is needed");
  assert.equal(await setting.run("list", "--agent", "ws://127.0.0.1:7070"), 3);
  assert.match(setting.stderr.text, /--key-file/);
  const hints = {
    "certificate-missing": /ramet pki issue YOU/,
    "certificate-untrusted": /certificates of one authority/,
    "certificate-expired": /ramet pki issue NAME --renew/,
    "certificate-revoked": /--renew/,
    "certificate-name": /--address/,
    "certificate-role": /--role/,
    "tls-failed": /speaks TLS/,
    "bad-credentials": /the message names the file/,
  };
  for (const [code, hint] of Object.entries(hints)) {
    setting.stderr.text = "";
    setting.refusal = new CodedError(code, "it is no good");
    assert.equal(await setting.run("list", "--agent", "hosta:7070"), 3);
    assert.match(setting.stderr.text, hint);
  }
});

test("an agent that goes away during a command exits with 3", async () => {
  const setting = new FakeSetting({ "guest.list": () => new Promise(() => {}) });
  const run = setting.run("list");
  await settle();
  setting.session.close({ code: "shutdown", message: "the agent ends", fatal: false });
  assert.equal(await run, 3);
  assert.match(setting.stderr.text, /the agent ends/);
});

test("the agent's address comes from --agent, then RAMET_AGENT, then the local socket", async () => {
  const setting = new FakeSetting({ "guest.list": () => Promise.resolve({ guests: [] }) });
  await setting.run("list");
  setting.variables.RAMET_AGENT = "[::1]:7070";
  await setting.run("list");
  await setting.run("list", "--agent", "ws://hostb:1/");
  await setting.run("list", "--agent", "/tmp/a.sock");
  assert.deepEqual(
    setting.dialled.map(({ url }) => url),
    ["unix:/run/ramet/rametd.sock", "wss://[::1]:7070", "ws://hostb:1", "unix:/tmp/a.sock"],
  );
});

test("a key file that cannot be read is wrong usage; none is asked for locally", async () => {
  const setting = new FakeSetting({ "guest.list": () => Promise.resolve({ guests: [] }) });
  assert.equal(await setting.run("list", "--agent", "ws://[::1]:1", "--key-file", "/nonexistent/key"), 2);
  assert.match(setting.stderr.text, /the key file cannot be read/);
  setting.variables.RAMET_KEY_FILE = "/nonexistent/key";
  assert.equal(await setting.run("list"), 0);
  assert.equal(setting.dialled[0]?.key, undefined);
});

test("what is shown to an agent over the network comes from options, the environment or a directory", async () => {
  const setting = new FakeSetting({ "guest.list": () => Promise.resolve({ guests: [] }) });
  setting.variables.HOME = "/nonexistent";
  const dialled = async (...argv: string[]) => {
    assert.equal(await setting.run("list", "--agent", "a:1", ...argv), 0);
    return setting.dialled.at(-1)?.credentials;
  };
  const inDirectory = (directory: string) => ({
    certificate: `${directory}/certificate.pem`,
    key: `${directory}/key.pem`,
    authority: `${directory}/authority.pem`,
  });
  assert.equal(await dialled(), undefined);
  assert.deepEqual(await dialled("--tls", "/t"), inDirectory("/t"));
  setting.variables.RAMET_TLS = "/e";
  assert.deepEqual(await dialled(), inDirectory("/e"));
  assert.deepEqual(await dialled("--tls", "/t", "--key", "/k"), { ...inDirectory("/t"), key: "/k" });
  setting.variables.RAMET_CERTIFICATE = "/c";
  setting.variables.RAMET_REVOKED = "/r";
  assert.deepEqual(await dialled(), { ...inDirectory("/e"), certificate: "/c", revoked: "/r" });
  await setting.run("list");
  assert.equal(setting.dialled.at(-1)?.credentials, undefined, "nothing is shown at the unix socket");
});

test("Ctrl-C ends a command that waits, with 130 and without a message", async () => {
  const setting = new FakeSetting({ "guest.list": () => new Promise(() => {}) });
  const run = setting.run("list");
  await settle();
  setting.interrupt();
  assert.equal(await run, 130);
  assert.equal(setting.stderr.text, "");
});

test("stop gives the agent its deadline", async () => {
  const seen: unknown[] = [];
  const setting = new FakeSetting({
    "guest.stop": (params) => {
      seen.push(params);
      return Promise.resolve({ guest: { ...GUEST, state: "stopped" } });
    },
  });
  assert.equal(await setting.run("stop", "web", "-t", "5"), 0);
  assert.deepEqual(seen, [{ name: "web", deadlineMs: 5000 }]);
  assert.equal(setting.stdout.text, "web is stopped\n");
});

test("remove --force kills first", async () => {
  const seen: string[] = [];
  const setting = new FakeSetting({
    "guest.kill": () => (seen.push("kill"), Promise.resolve({ guest: GUEST })),
    "guest.remove": () => (seen.push("remove"), Promise.resolve({})),
  });
  assert.equal(await setting.run("rm", "web", "-f"), 0);
  assert.deepEqual(seen, ["kill", "remove"]);
});

test("logs prints lines, and with -f later ones until the connection ends", async () => {
  const setting = new FakeSetting({
    "guest.logs": (params, { session }) => {
      if (params.follow) session.sendEvent("log", { guest: "web", lines: ["early"] });
      return Promise.resolve({ lines: ["one", "two"] });
    },
  });
  assert.equal(await setting.run("logs", "web", "-n", "2"), 0);
  assert.equal(setting.stdout.text, "one\ntwo\n");
  setting.stdout.text = "";
  const run = setting.run("logs", "web", "-f", "--json");
  await settle();
  setting.session.sendEvent("log", { guest: "web", lines: ["late"] });
  setting.session.sendEvent("log", { guest: "other", lines: ["no"] });
  setting.interrupt();
  assert.equal(await run, 130);
  assert.deepEqual(
    setting.stdout.text
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { lines: string[] }).lines),
    [["one", "two"], ["early"], ["late"]],
  );
});

test("version tells of an agent that is not there and succeeds", async () => {
  const setting = new FakeSetting();
  setting.refusal = new CodedError("unreachable", "nobody there");
  assert.equal(await setting.run("version"), 0);
  assert.match(setting.stdout.text, /^ramet 9.8.7 \(API version 1\)\nagent: .*nobody there\n$/);
});

test("ping, peers, warm, transfers and the steering commands print what they are told", async () => {
  const steered: object[] = [];
  const setting = new FakeSetting({
    "peer.ping": ({ to }) =>
      Promise.resolve({ address: to, name: "hostb", version: "0.1.0", roundTripsUs: [90, 40, 1500] }),
    "peer.list": () =>
      Promise.resolve({
        peers: [{ address: "ws://b:1", name: "hostb", state: "connected" as const, transfers: 1 }],
      }),
    "guest.warm": () => Promise.resolve({ warm: [{ host: "hostb", count: 2 }] }),
    "transfer.list": () => Promise.resolve({ transfers: [TRANSFER] }),
    "transfer.cancel": () => Promise.resolve({ transfer: { ...TRANSFER, phase: "cancelled" as const } }),
    "transfer.sweep": () => Promise.resolve({ transfer: TRANSFER }),
    "transfer.steer": (params) => {
      steered.push(params);
      return Promise.resolve({ transfer: TRANSFER });
    },
    "transfer.run": () => Promise.resolve({ transfer: TRANSFER }),
    "guest.list": () => Promise.resolve({ guests: [] }),
  });
  const commands: [string[], RegExp][] = [
    [["ping", "hostb"], /least 40 µs, median 90 µs, most 1.5 ms/],
    [["peers"], /hostb {2}ws:\/\/b:1 {2}connected/],
    [["warm", "web", "--to", "hostb", "-c", "2"], /^hostb has 2 emulators ready\n$/],
    [
      ["transfers"],
      /7 {2}fork {2}parent {2}web → web-1 on ws:\/\/127.0.0.1:7001 {2}paging +25 % +192 MiB +1.23 ms +9.88 ms +1.5 s\n/,
    ],
    [["transfers", "-q"], /^7\n$/],
    [["cancel", "7"], /cancelled 25 %/],
    [["sweep", "7", "held"], /paging 25 %/],
    [["steer", "7", "--rate-limit", "100MiB", "--priority", "low"], /paging 25 %/],
    [["steer", "7", "--rate-limit", "none", "--sweep", "on", "--compression", "auto"], /paging 25 %/],
    [["resume", "7"], /paging 25 %/],
  ];
  for (const [argv, text] of commands) {
    setting.stdout.text = "";
    assert.equal(await setting.run(...argv), 0, `${argv.join(" ")}: ${setting.stderr.text}`);
    assert.match(setting.stdout.text, text);
  }
  assert.deepEqual(steered, [
    { transfer: 7, rateLimitBytesPerSecond: 100 * 2 ** 20, priority: "low" },
    { transfer: 7, rateLimitBytesPerSecond: 0, sweep: "on", compression: "auto" },
  ]);
});

test("audit shows who did what, and pki reload has the agent read its certificates again", async () => {
  const entry = {
    at: "2026-01-01T00:00:00.000Z",
    who: "O=Ramet, CN=alice",
    shown: "certificate" as const,
    from: "192.0.2.7:1",
    role: "client" as const,
    method: "guest.kill",
    params: '{"name":"web\u001b"}',
    outcome: "forbidden",
    tookMs: 1,
  };
  const counts: number[] = [];
  const setting = new FakeSetting({
    "agent.audit": ({ count }) => {
      counts.push(count);
      return Promise.resolve({ entries: [entry] });
    },
    "agent.reload": () => Promise.resolve({ subject: "CN=a", endsAtMs: 0 }),
  });
  assert.equal(await setting.run("audit", "-n", "5"), 0);
  assert.deepEqual(counts, [5]);
  assert.match(
    setting.stdout.text,
    /^2026-.*O=Ramet, CN=alice \(192\.0\.2\.7:1\) {2}guest\.kill .* {2}forbidden\n$/,
  );
  assert.ok(!setting.stdout.text.includes("\u001b"));
  assert.equal(await setting.run("pki", "reload"), 0);
  assert.match(setting.stdout.text, /the agent is CN=a, until 1970-01-01/);
});
