import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { describe, test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { certainAfterMs, Lease } from "../../../src/agent/transfers/lease.js";
import { ManualClock } from "../../support/lane-clock.js";

const LEASE_MS = 10_000;

function leased(
  options: { stop?: () => Promise<void>; resume?: () => Promise<void>; heardUs?: number } = {},
) {
  const clock = new ManualClock();
  const calls: string[] = [];
  const state = { linked: true };
  const noted: number[] = [];
  const lease = new Lease({
    leaseMs: LEASE_MS,
    ...(options.heardUs === undefined ? {} : { heardUs: options.heardUs }),
    note: (us) => noted.push(us),
    isLinked: () => state.linked,
    stop: async () => {
      calls.push("stop");
      await options.stop?.();
    },
    resume: async () => {
      calls.push("resume");
      await options.resume?.();
    },
    clock,
    log: silentLog,
  });
  const pass = async (seconds: number) => {
    for (let second = 0; second < seconds; second += 1) {
      clock.advance(1000);
      lease.check();
      await turn();
    }
  };
  return { lease, state, calls, pass, noted };
}

describe("a migrated child's lease", () => {
  test("is kept up for as long as the parent's host is there, and a short absence is nothing", async () => {
    const { state, calls, pass } = leased();
    await pass(60);
    state.linked = false;
    await pass(10);
    state.linked = true;
    await pass(60);
    assert.deepEqual(calls, []);
  });

  test("stops the child when it is over, once, and lets it go on when the host is back", async () => {
    const { state, calls, pass } = leased();
    state.linked = false;
    await pass(30);
    assert.deepEqual(calls, ["stop"]);
    state.linked = true;
    await pass(3);
    assert.deepEqual(calls, ["stop", "resume"]);
  });

  test("resumes a child that becomes complete while it stands still, and no other", async () => {
    const standing = leased();
    standing.state.linked = false;
    await standing.pass(12);
    await standing.lease.end();
    assert.deepEqual(standing.calls, ["stop", "resume"]);
    const running = leased();
    await running.lease.end();
    assert.deepEqual(running.calls, []);
  });

  test("takes a child that cannot be stopped for one that stands still, and tries again to resume", async () => {
    let failures = 2;
    const refuse = () => Promise.reject(new Error("the emulator does not answer"));
    const { state, calls, pass } = leased({
      stop: refuse,
      resume: () => ((failures -= 1) >= 0 ? refuse() : Promise.resolve()),
    });
    state.linked = false;
    await pass(20);
    state.linked = true;
    await pass(5);
    assert.deepEqual(calls, ["stop", "resume", "resume", "resume"]);
  });

  test("goes on with the next agent where it was: that one does not begin it anew", async () => {
    const first = leased();
    await first.pass(12);
    assert.deepEqual(first.noted, [2_000_000, 7_000_000, 12_000_000]);
    const next = leased({ heardUs: 1_000_000 - LEASE_MS * 1000 });
    next.state.linked = false;
    await next.pass(1);
    assert.deepEqual(next.calls, ["stop"]);
    const ahead = leased({ heardUs: 1e12 });
    ahead.state.linked = false;
    await ahead.pass(11);
    assert.deepEqual(ahead.calls, ["stop"], "a time to come is none");
  });

  test("lets a child that was found standing still go on only when the host is there, or says so", async () => {
    const { lease, state, calls, pass } = leased();
    state.linked = false;
    lease.hold();
    await pass(30);
    assert.deepEqual(calls, []);
    state.linked = true;
    await pass(2);
    assert.deepEqual(calls, ["resume"]);
    const told = leased();
    told.state.linked = false;
    told.lease.hold();
    await told.lease.goOn();
    await told.pass(9);
    assert.deepEqual(told.calls, ["resume"]);
  });

  test("is certainly over only when the child's host has noticed that nobody is there", () => {
    assert.ok(certainAfterMs(LEASE_MS) > LEASE_MS + 40_000 + 1000);
  });
});
