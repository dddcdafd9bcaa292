import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { Guest } from "../../../src/agent/guests/guest.js";
import type { Services } from "../../../src/agent/services.js";
import { CompleteChild } from "../../../src/agent/transfers/complete-child.js";
import { recoverTransfers } from "../../../src/agent/transfers/recover.js";
import {
  RecordFile,
  type ChildRecord,
  type ParentRecord,
} from "../../../src/agent/transfers/transfer-record.js";
import type { IncomingTransfers } from "../../../src/agent/transfers/incoming-transfers.js";
import { silentLog } from "../../../src/base/index.js";
import { ManualClock } from "../../support/lane-clock.js";
import { FakeEmulator } from "./fakes.js";

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-complete-"))));
afterEach(() => rmSync(directory, { recursive: true }));

/** A guest that came here by a transfer whose agent has ended; its emulator stands still. */
function scene(state: string, step: ChildRecord["step"]) {
  const emulator = new FakeEmulator();
  const guest = {
    name: "web",
    log: silentLog,
    state,
    hasEmulator: true,
    config: { network: { mode: "none" } },
    live: { emulator: emulator.asEmulator },
    note: (change: { state: string }) => (guest.state = change.state),
    update: async (change: { state: string }) => void (guest.state = change.state),
  };
  const listed: unknown[] = [];
  const clock = new ManualClock();
  const removed: unknown[] = [];
  const registry = { remove: async (one: unknown) => void removed.push(one) };
  const services = { clock, registry, book: { add: (entry: unknown) => listed.push(entry) } };
  const params = { transfer: 7, kind: "migrate", parent: { guest: "web", host: "a" }, pageCount: 16 };
  const complete = { verify: { checked: 16, mismatches: 0 } };
  const record = { version: 1, side: "child", transfer: 7, params, step, incarnation: 0, complete };
  const file = RecordFile.create(directory, { ...record, startedAtMs: 0 } as ChildRecord);
  const make = () => new CompleteChild(services as unknown as Services, guest as unknown as Guest, file);
  return { clock, removed, emulator, guest, listed, file, make };
}

test("a complete child that its agent had just told to run is let run", async () => {
  const { emulator, guest, listed, make } = scene("receiving", "running");
  const child = make();
  await child.settle();
  assert.deepEqual([emulator.calls, guest.state, listed.length], [["resume"], "running", 0]);
  assert.deepEqual(child.report(), {
    transfer: 7,
    phase: "complete",
    verify: { checked: 16, mismatches: 0 },
  });
});

test("one that is known to be complete is left as it is: it may have been stopped for a migration since", async () => {
  for (const state of ["running", "migrated", "paused"]) {
    const { emulator, guest, make } = scene(state, "running");
    const child = make();
    await child.settle();
    await child.run();
    assert.deepEqual([emulator.calls, guest.state], [[], state]);
  }
});

test("one that is held can be let run, once", async () => {
  const { emulator, guest, listed, make } = scene("paused", "loaded");
  const child = make();
  await child.settle();
  assert.deepEqual([child.isHeld, emulator.calls, listed.length], [true, [], 1]);
  await child.run();
  await child.run();
  assert.deepEqual([child.isHeld, emulator.calls, guest.state], [false, ["resume"], "running"]);
  await assert.rejects(child.cancel(), { code: "bad-state" });
});

test("one of a migration that was never told to run is removed: its parent may run on instead", async () => {
  const told = scene("paused", "loaded");
  const spoken = told.make();
  await spoken.run();
  const { clock, removed, guest, make } = scene("paused", "loaded");
  make();
  clock.advance(19_000);
  assert.deepEqual(removed, []);
  clock.advance(2000);
  assert.deepEqual(removed, [guest]);
  told.clock.advance(30_000);
  assert.deepEqual(told.removed, []);
});

test("the record of a former child does not matter to a guest that is a parent by now", async () => {
  const { guest, file } = scene("migrated", "running");
  const recovered: unknown[] = [];
  const incoming = { recover: async (_guest: unknown, child: unknown) => void recovered.push(child) };
  const parents = [
    RecordFile.opened<ParentRecord>(join(directory, "none"), { step: "paging" } as ParentRecord),
  ];
  const withheld: unknown[] = [];
  const registry = {
    list: () => [],
    unfinished: [{ guest, parents, children: [file] }],
    whenAnswering: () => {},
    withhold: (_guest: unknown, error: unknown) => withheld.push(error),
  };
  const services = { registry } as unknown as Services;
  await recoverTransfers(services, incoming as unknown as IncomingTransfers);
  assert.deepEqual(recovered, []);
});
