import assert from "node:assert/strict";
import { test } from "node:test";
import { CodedError } from "../../../src/base/index.js";
import type { ChildOutcome, Handlers, TransferView } from "../../../src/control/index.js";
import { TRANSFER } from "../control/support.js";
import { FakeSetting, settle } from "./support.js";

const CHILD: ChildOutcome = {
  transfer: 7,
  guest: "web-1",
  host: "hostb",
  state: "running",
  pauseUs: 1234,
  pauseParts: { stopUs: 200, saveUs: 900, resumeUs: 134, rearmedPages: 12 },
  firstInstructionUs: 9876,
};

const COMPLETE: TransferView = {
  ...TRANSFER,
  phase: "complete",
  pages: { ...TRANSFER.pages, received: 65536, sweep: 55386 },
  faults: { count: 100, waiting: 0, p50Us: 310, p90Us: 640, p99Us: 1400, maxUs: 2000 },
  verify: { checked: 65536, mismatches: 0 },
  elapsedMs: 2500,
};

/** An agent that forks web once; `views` is what it then knows of the transfer. */
function forking(views: TransferView[], children: ChildOutcome[] = [CHILD]) {
  let forked = false;
  const seen: unknown[] = [];
  const handlers: Partial<Handlers<"client">> = {
    "transfer.list": () => Promise.resolve({ transfers: forked ? views : [] }),
    "guest.fork": (params) => {
      seen.push(params);
      forked = true;
      return Promise.resolve({ transfers: children });
    },
  };
  return { setting: new FakeSetting(handlers), seen };
}

test("fork says how the children came out, waits for their memory, and says what it took", async () => {
  const { setting } = forking([TRANSFER]);
  const run = setting.run("fork", "web", "--to", "hostb");
  await settle();
  const sinceMs = TRANSFER.startedAtMs + TRANSFER.elapsedMs - 12_500;
  const link = { state: "reconnecting" as const, sinceMs, why: "it does not answer" };
  setting.session.sendEvent("transfer", { transfer: { ...TRANSFER, host: "hostb", link } });
  await settle();
  setting.session.sendEvent("transfer", { transfer: COMPLETE });
  assert.equal(await run, 0, setting.stderr.text);
  assert.equal(
    setting.stdout.text,
    "web-1 on hostb runs (transfer 7)\n" +
      "  parent paused      1.23 ms (stop 200 µs, save 900 µs, resume 134 µs, rearmed pages 12)\n" +
      "  first instruction  9.88 ms after the command\n" +
      "fork 7 web → web-1 on ws://127.0.0.1:7001: paging 25 %, 192 MiB to come (fault 100, push 50, sweep 6234)\n" +
      "fork 7 web → web-1 on hostb: paging 25 %, waiting for hostb, 12 s, 192 MiB to come (fault 100, push 50, sweep 6234): it does not answer\n" +
      "fork 7 web → web-1 on ws://127.0.0.1:7001: complete 100 %, 0 B to come (fault 100, push 50, sweep 55386)\n" +
      "web → web-1 on ws://127.0.0.1:7001 complete after 2.5 s\n" +
      "  pages              65536: 100 by fault, 50 by push, 55386 by sweep; 10000 of them zero\n" +
      "  sent               488 KiB urgent, 11.4 MiB bulk\n" +
      "  faults             100 served, p50 310 µs, p99 1.4 ms\n" +
      "  verified           65536 pages, all as at the instant of the fork\n",
  );
});

test("fork --json prints one document at the end", async () => {
  const { setting } = forking([COMPLETE]);
  assert.equal(await setting.run("fork", "web", "--json"), 0, setting.stderr.text);
  assert.deepEqual(JSON.parse(setting.stdout.text), { transfers: [CHILD], ends: [COMPLETE] });
});

test("fork --no-wait, and a held sweep, end as soon as the children run", async () => {
  for (const option of ["--no-wait", "--sweep=held"]) {
    const { setting } = forking([TRANSFER]);
    assert.equal(await setting.run("fork", "web", option), 0, setting.stderr.text);
    assert.match(setting.stdout.text, /^web-1 on hostb runs \(transfer 7\)\n/);
    setting.stdout.text = "";
    assert.equal(await setting.run("fork", "web", option, "--json"), 0);
    assert.deepEqual(JSON.parse(setting.stdout.text), { transfers: [CHILD] });
  }
});

test("fork passes its options on", async () => {
  const { setting, seen } = forking([]);
  const code = await setting.run(
    ...[
      "fork",
      "web",
      "--to",
      "a,b",
      "--to",
      "c:1",
      "--count",
      "3",
      "--name",
      "x,y",
      "-n",
      "z",
      "-p",
      "9000:80",
    ],
    ...[
      "--network",
      "attached",
      "--verify",
      "--paused",
      "--relay",
      "tree",
      "--compression",
      "lz4",
      "--rate-limit",
      "50M",
      "--priority",
      "low",
      "--no-working-set",
      "--no-wait",
    ],
  );
  assert.equal(code, 0, setting.stderr.text);
  assert.deepEqual(seen, [
    {
      name: "web",
      to: ["a", "b", "c:1"],
      count: 3,
      names: ["x", "y", "z"],
      forwards: [{ address: "127.0.0.1", hostPort: 9000, guestPort: 80, protocol: "tcp" }],
      network: "attached",
      memory: "shared",
      verify: true,
      paused: true,
      sweep: "on",
      relay: "tree",
      compression: "lz4",
      rateLimitBytesPerSecond: 50 * 1024 * 1024,
      priority: "low",
      workingSet: false,
    },
  ]);
});

test("a child that fails at the start, or later, exits with 1; the others are followed", async () => {
  const failed: ChildOutcome = {
    transfer: 8,
    guest: "web-2",
    host: "hostc",
    state: "failed",
    error: { code: "no-room", message: "no room" },
  };
  const first = forking([COMPLETE], [CHILD, failed]);
  assert.equal(await first.setting.run("fork", "web"), 1);
  assert.match(first.setting.stdout.text, /web-2 on hostc failed: no room\n/);
  assert.match(first.setting.stdout.text, /complete after/);
  assert.match(first.setting.stderr.text, /^ramet: 1 of 2 did not succeed\n/);

  const later = forking([
    { ...TRANSFER, phase: "failed", error: { code: "link-lost", message: "link lost" } },
  ]);
  assert.equal(await later.setting.run("fork", "web"), 1);
  assert.match(later.setting.stdout.text, /failed: link lost\n/);
});

test("pages that differ are a failure", async () => {
  const { setting } = forking([{ ...COMPLETE, verify: { checked: 10, mismatches: 2 } }]);
  assert.equal(await setting.run("fork", "web", "--verify"), 1);
  assert.match(setting.stdout.text, /10 pages, 2 DIFFER/);
  assert.match(setting.stderr.text, /^ramet: 2 pages differ/);
});

test("a fork that the agent refuses has its code", async () => {
  const setting = new FakeSetting({
    "transfer.list": () => Promise.resolve({ transfers: [] }),
    "guest.fork": () => Promise.reject(new CodedError("no-such-guest", "there is no guest named web")),
  });
  assert.equal(await setting.run("fork", "web"), 4);
});

test("on a terminal progress is painted in place and the cursor comes back, also at Ctrl-C", async () => {
  const { setting } = forking([TRANSFER]);
  setting.stdout.isTerminal = true;
  const run = setting.run("fork", "web");
  await settle();
  setting.clock.advance(200);
  assert.match(setting.stdout.text, /\x1b\[\?25l/);
  assert.match(setting.stdout.text, /memory ████████·+ {2}25 % {2}192 MiB to come/);
  assert.match(setting.stdout.text, /urgent /);
  assert.match(setting.stdout.text, /bulk /);
  setting.interrupt();
  assert.equal(await run, 130);
  assert.ok(setting.stdout.text.endsWith("\x1b[?25h"));
  assert.match(setting.stderr.text, /^ramet: the fork goes on; ramet watch shows it/);
});

test("lost events are made good by asking again", async () => {
  const views = [TRANSFER];
  const { setting } = forking(views);
  const run = setting.run("fork", "web");
  await settle();
  views[0] = COMPLETE;
  setting.session.sendEvent("lagged", { dropped: 3 });
  assert.equal(await run, 0);
});

test("an agent that goes away while a fork is followed exits with 3", async () => {
  const { setting } = forking([TRANSFER]);
  const run = setting.run("fork", "web");
  await settle();
  setting.session.close({ code: "shutdown", message: "the agent ends", fatal: false });
  assert.equal(await run, 3);
});

test("migrate follows its one child", async () => {
  let moved = false;
  const view: TransferView = { ...COMPLETE, kind: "migrate", peerGuest: "web" };
  const setting = new FakeSetting({
    "transfer.list": () => Promise.resolve({ transfers: moved ? [view] : [] }),
    "guest.migrate": ({ to }) => {
      moved = true;
      return Promise.resolve({ transfers: [{ ...CHILD, guest: "web", host: to }] });
    },
  });
  assert.equal(await setting.run("migrate", "web", "--to", "hostb"), 0, setting.stderr.text);
  assert.match(setting.stdout.text, /^web on hostb runs \(transfer 7\)\n/);
  assert.equal(await new FakeSetting().run("migrate", "web"), 2);
});

test("watch shows every change, as JSON lines with --json, and ends when the ids it was given are over", async () => {
  const setting = new FakeSetting({
    "transfer.show": () => Promise.resolve({ transfer: TRANSFER }),
    "transfer.list": () => Promise.resolve({ transfers: [{ ...COMPLETE, id: 3 }, TRANSFER] }),
  });
  const run = setting.run("watch", "7", "--json");
  await settle();
  setting.session.sendEvent("transfer", { transfer: { ...TRANSFER, id: 4 } });
  setting.session.sendEvent("transfer", { transfer: COMPLETE });
  assert.equal(await run, 0, setting.stderr.text);
  const lines = setting.stdout.text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as object);
  assert.deepEqual(lines, [
    { event: "transfer", data: { transfer: TRANSFER } },
    { event: "transfer", data: { transfer: COMPLETE } },
  ]);
});

test("watch without ids goes on until Ctrl-C and shows no old transfers", async () => {
  const setting = new FakeSetting({
    "transfer.list": () => Promise.resolve({ transfers: [{ ...COMPLETE, id: 3 }] }),
  });
  const run = setting.run("watch");
  await settle();
  setting.session.sendEvent("transfer", { transfer: TRANSFER });
  setting.session.sendEvent("transfer", { transfer: { ...TRANSFER, elapsedMs: 1600 } });
  setting.session.sendEvent("transfer", { transfer: COMPLETE });
  setting.interrupt();
  assert.equal(await run, 130);
  assert.deepEqual(
    setting.stdout.text
      .trim()
      .split("\n")
      .map((line) => /: (\w+ \d+ %)/.exec(line)?.[1]),
    ["paging 25 %", "complete 100 %"],
  );
});

test("watch of a transfer that does not exist is not found", async () => {
  const setting = new FakeSetting({
    "transfer.show": () => Promise.reject(new CodedError("no-such-transfer", "there is no transfer 9")),
  });
  assert.equal(await setting.run("watch", "9"), 4);
});
