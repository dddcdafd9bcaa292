import assert from "node:assert/strict";
import { test } from "node:test";
import { CodedError } from "../../../src/base/index.js";
import type { GuestView } from "../../../src/control/index.js";
import { GUEST, TRANSFER } from "../control/support.js";
import { FakeSetting } from "./support.js";

const SUSPENDED: GuestView = {
  ...GUEST,
  state: "suspended",
  suspended: {
    stoppedAtMs: 1000,
    emulatorVersion: "7.2.22",
    stateBytes: 256 * 1024,
    allocatedBytes: 128 * 1024 * 1024,
  },
};
const running = (name: string): GuestView => ({ ...GUEST, name, state: "running" });
const resumed = (name: string) => ({
  guest: running(name),
  emulator: { version: "10.0.2", pid: 1, path: "/bin/qemu" },
  stoodStillMs: 1500,
});

test("suspend and resume say what memory waits, and in what the guest runs on", async () => {
  const asked: unknown[] = [];
  const setting = new FakeSetting({
    "guest.suspend": (params) => (asked.push(params), Promise.resolve({ guest: SUSPENDED })),
    "guest.resume": (params) => (asked.push(params), Promise.resolve(resumed("web"))),
    "guest.show": () => Promise.resolve({ guest: SUSPENDED }),
  });
  assert.equal(await setting.run("suspend", "web"), 0);
  assert.equal(await setting.run("show", "web"), 0);
  assert.equal(await setting.run("resume", "web", "--emulator", "10.0"), 0);
  assert.deepEqual(asked, [{ name: "web" }, { name: "web", emulator: "10.0" }]);
  assert.match(setting.stdout.text, /is suspended: 128 MiB of memory and 256 KiB of device state\n/);
  assert.match(setting.stdout.text, /by emulator 7\.2\.22; 128 MiB of memory/);
  assert.match(setting.stdout.text, /web runs in \/bin\/qemu \(10\.0\.2\); it stood still for 1\.5 s\n$/);
});

test("a number is a child's transfer, unless a guest is called so", async () => {
  let guests: GuestView[] = [];
  const asked: string[] = [];
  const setting = new FakeSetting({
    "guest.list": () => Promise.resolve({ guests }),
    "guest.resume": () => (asked.push("guest"), Promise.resolve(resumed("7"))),
    "transfer.run": () => (asked.push("transfer"), Promise.resolve({ transfer: TRANSFER })),
  });
  assert.equal(await setting.run("resume", "7"), 0);
  guests = [running("7")];
  assert.equal(await setting.run("resume", "7"), 0);
  assert.deepEqual(asked, ["transfer", "guest"]);
});

test("--all goes on past a guest that cannot, and says so", async () => {
  const setting = new FakeSetting({
    "guest.list": () => Promise.resolve({ guests: [running("one"), running("two"), SUSPENDED] }),
    "guest.suspend": ({ name }) =>
      name === "one"
        ? Promise.reject(new CodedError("not-ready", "guest one has children"))
        : Promise.resolve({ guest: { ...SUSPENDED, name } }),
  });
  assert.equal(await setting.run("suspend", "--all"), 1);
  assert.match(
    setting.stdout.text,
    /^two is suspended.*\nweb is suspended: nothing was done\none: .*children/m,
  );
  assert.match(setting.stderr.text, /1 of 2 guests failed: one/);
  setting.stdout.text = "";
  assert.equal(await setting.run("suspend", "--all", "--json"), 1);
  const { done, failed, others } = JSON.parse(setting.stdout.text) as Record<string, unknown[]>;
  assert.deepEqual(
    [done?.length, failed?.length, others],
    [1, 1, [{ name: SUSPENDED.name, state: "suspended" }]],
  );
  assert.equal(await setting.run("suspend"), 2);
  assert.equal(await setting.run("resume", "web", "--all"), 2);
});
