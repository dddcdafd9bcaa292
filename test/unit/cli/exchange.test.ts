import assert from "node:assert/strict";
import { test } from "node:test";
import type { ExchangedGuest, ExchangeRunView } from "../../../src/control/index.js";
import { FakeSetting, settle } from "./support.js";

const one = (name: string, standing: ExchangedGuest["standing"], more: Partial<ExchangedGuest> = {}) => ({
  id: `00000000-0000-4000-8000-00000000000${name.at(-1)}`,
  name,
  standing,
  ...more,
});
const RUN: ExchangeRunView = {
  emulator: "10.0",
  parallel: 2,
  waitMs: 600_000,
  phase: "running",
  startedAtMs: 0,
  guests: [one("web-1", "under-way"), one("web-2", "waiting")],
};
const EXCHANGED = one("web-1", "exchanged", { from: "7.2.22", to: "10.0.2", pauseUs: 3100 });
const DONE: ExchangeRunView = { ...RUN, phase: "done", endedAtMs: 1000, guests: [EXCHANGED] };

test("exchange is told what is to be exchanged, once", async () => {
  const usages: [string[], RegExp][] = [
    [[], /needs the name of a guest, --all, --status or --stop/],
    [["web", "--all"], /one of a guest and --all at a time/],
    [["--stop", "--status"], /one of --status and --stop/],
    [["web", "--parallel", "2"], /--parallel is for --all/],
    [["--status", "--wait", "1m"], /--wait is for --all/],
    [["--all", "--follow"], /--follow is for --status/],
    [["--stop", "-e", "10.0"], /--emulator is for/],
    [["--all", "--wait", "2d"], /at most 24h/],
    [["--all", "--parallel", "0"], /1 to 16/],
    [["--all", "--parallel", "17"], /1 to 16/],
  ];
  for (const [args, message] of usages) {
    const setting = new FakeSetting();
    assert.equal(await setting.run("exchange", ...args), 2, args.join(" "));
    assert.match(setting.stderr.text, message);
    assert.equal(setting.dialled.length, 0);
  }
});

test("exchange --all follows until it is over, and fails when a guest is not there", async () => {
  const seen: unknown[] = [];
  let shown = RUN;
  const setting = new FakeSetting({
    "exchange.start": (params) => {
      seen.push(params);
      return Promise.resolve({ run: RUN });
    },
    "exchange.show": () => Promise.resolve({ run: shown }),
  });
  const run = setting.run("exchange", "--all", "-e", "10.0", "--parallel", "4", "--wait", "1m");
  await settle();
  assert.deepEqual(seen, [{ emulator: "10.0", parallel: 4, waitMs: 60_000 }]);
  const refused = one("web-2", "refused", { reason: { code: "not-ready", message: "its memory is shared" } });
  shown = { ...DONE, guests: [EXCHANGED, refused] };
  setting.clock.advance(250);
  assert.equal(await run, 1);
  assert.match(
    setting.stdout.text,
    /^web-1: exchanged 7\.2\.22 to 10\.0\.2, pause 3\.1 ms\nweb-2: refused: its/,
  );
  assert.match(setting.stdout.text, /is over, 1 s since it began: 1 exchanged, 1 refused\n/);
  assert.match(setting.stderr.text, /1 of 2 guests were not exchanged/);
});

test("an interrupted exchange --all says how to follow and to stop it; a lost agent, that the next one goes on", async () => {
  const setting = new FakeSetting({ "exchange.start": () => Promise.resolve({ run: RUN }) });
  const run = setting.run("exchange", "--all");
  await settle();
  setting.interrupt();
  assert.equal(await run, 130);
  assert.match(setting.stderr.text, /goes on; ramet exchange --status .* --stop/);

  const lost = new FakeSetting({ "exchange.start": () => Promise.resolve({ run: RUN }) });
  const second = lost.run("exchange", "--all");
  await settle();
  lost.session.close({ code: "closed", message: "the agent is stopping", fatal: false });
  lost.clock.advance(250);
  assert.equal(await second, 3);
  assert.match(lost.stderr.text, /the next agent goes on/);
});

test("exchange --status says what there is, as lines or as it is; --stop follows to the end", async () => {
  const never = new FakeSetting({ "exchange.show": () => Promise.resolve({}) });
  assert.equal(await never.run("exchange", "--status"), 0);
  assert.equal(never.stdout.text, "no exchange of all guests was asked for yet\n");
  const setting = new FakeSetting({
    "exchange.show": () => Promise.resolve({ run: DONE }),
    "exchange.stop": () => Promise.resolve({ run: { ...DONE, phase: "stopped" as const } }),
  });
  assert.equal(await setting.run("--json", "exchange", "--status"), 0);
  assert.deepEqual(JSON.parse(setting.stdout.text), { run: DONE });
  setting.stdout.text = "";
  assert.equal(await setting.run("exchange", "--stop"), 0);
  assert.match(setting.stdout.text, /was stopped, 1 s since it began/);
});
