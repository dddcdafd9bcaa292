import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeSetting, settle } from "./support.js";

/** An agent with one console, which says "login: " at once and repeats what it is given. */
function echoing() {
  const seen: string[] = [];
  const setting = new FakeSetting({
    "guest.console.open": (_, { session }) => {
      session.sendEvent("console", { console: 5, data: Buffer.from("login: ") });
      return Promise.resolve({ console: 5 });
    },
    "guest.console.input": ({ data }, { session }) => {
      const text = Buffer.from(data).toString();
      seen.push(text);
      session.sendEvent("console", { console: 5, data: Buffer.from(`<${text}>`) });
      return Promise.resolve({});
    },
  });
  return { setting, seen };
}

test("console joins a terminal to the guest, raw, and Ctrl-] leaves it", async () => {
  const { setting, seen } = echoing();
  setting.stdin.isTerminal = true;
  const run = setting.run("console", "web");
  await settle();
  assert.equal(setting.stdin.raw, true);
  setting.stdin.type("ls\r");
  await settle();
  setting.stdin.type("x\x1dy");
  assert.equal(await run, 0);
  assert.equal(setting.stdin.raw, false);
  assert.deepEqual(seen, ["ls\r", "x"]);
  assert.equal(setting.stdout.text, "login: <ls\r><x>");
  assert.match(setting.stderr.text, /^Console of web. Ctrl-] leaves it.\r\n\r\nLeft the console/);
});

test("piped input is passed on, Ctrl-] in it too, and the console is left once it is silent", async () => {
  const { setting, seen } = echoing();
  const run = setting.run("console", "web");
  await settle();
  setting.stdin.type("uname\n\x1d");
  await settle();
  setting.stdin.handlers?.onEnd();
  setting.clock.advance(900);
  setting.session.sendEvent("console", { console: 5, data: Buffer.from("Linux") });
  setting.clock.advance(900);
  await settle();
  assert.equal(setting.stdout.text, "login: <uname\n\x1d>Linux");
  setting.clock.advance(200);
  assert.equal(await run, 0);
  assert.deepEqual(seen, ["uname\n\x1d"]);
  assert.equal(setting.clock.timers, 0);
});

test("console --follow stays after the input", async () => {
  const { setting } = echoing();
  const run = setting.run("console", "web", "--follow");
  await settle();
  setting.stdin.handlers?.onEnd();
  setting.clock.advance(60_000);
  setting.session.sendEvent("console", { console: 5, data: Buffer.from("late") });
  setting.interrupt();
  assert.equal(await run, 130);
  assert.match(setting.stdout.text, /late$/);
});

test("a console that ends is left, and the terminal given back", async () => {
  const { setting } = echoing();
  setting.stdin.isTerminal = true;
  const run = setting.run("console", "web");
  await settle();
  setting.session.sendEvent("console", { console: 5, data: Buffer.alloc(0), end: "the guest stopped" });
  assert.equal(await run, 0);
  assert.equal(setting.stdin.raw, false);
  assert.match(setting.stderr.text, /The console ended: the guest stopped/);
});
