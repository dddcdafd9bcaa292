import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { describe, test } from "node:test";
import { deferred, silentLog } from "../../../src/base/index.js";
import { IncomingChild } from "../../../src/agent/transfers/incoming-child.js";
import { RecordFile, type ChildRecord } from "../../../src/agent/transfers/transfer-record.js";
import { ManualClock } from "../../support/lane-clock.js";
import { idleThread } from "./fakes.js";

const TRANSFER = 9;

/** The child's side of a migration on an emulator in the hands of the test. */
function migrated(directory: string, kind: "fork" | "migrate" = "migrate", isSaved = true) {
  const loads: string[] = [];
  const resuming = deferred<void>();
  const resumed = deferred<{ resumedAtUs: number }>();
  const removing = deferred<void>();
  const saved = deferred<void>();
  if (isSaved) saved.resolve();
  const emulator = {
    loadDeviceState: async (_state: Uint8Array, { run }: { run: boolean }) => {
      const kept = readFileSync(join(directory, `transfer-${TRANSFER}-child.json`), "utf8");
      const { step } = JSON.parse(kept) as ChildRecord;
      loads.push(`${step}, ${run ? "and runs" : "held"}`);
    },
    resume: () => {
      resuming.resolve();
      return resumed.promise;
    },
  };
  const guest = {
    name: "web",
    state: "receiving",
    record: { parent: { transfer: TRANSFER, kind }, config: { name: "web" } },
    log: silentLog,
    config: { network: { mode: "none" }, disks: [] },
    hasEmulator: true,
    get live() {
      return live;
    },
    occupy: () => () => {},
    isSaved,
    saved: () => saved.promise,
    note: () => {},
  };
  const services = {
    clock: new ManualClock(),
    configuration: { name: "b", limits: { migrationLeaseSeconds: 60 } },
    book: { add: () => {} },
    registry: { remove: () => removing.promise },
    paths: { guestMemory: () => directory },
    faults: idleThread,
    lanesAhead: { take: () => undefined },
    disks: { arrivals: { begin: async () => {} } },
  };
  const session = { onEnd: () => () => {}, sendEvent: () => true };
  const live = { emulator, memory: { fillable: () => ({ pageCount: 16 }) } };
  const params = { transfer: TRANSFER, kind, parent: { guest: "web", host: "a" }, pageCount: 16 };
  const record = RecordFile.create(directory, {
    version: 1,
    side: "child",
    transfer: TRANSFER,
    params,
    step: "loading",
    incarnation: 0,
    startedAtMs: 0,
  } as unknown as ChildRecord);
  const options = { services, record, guest, live, session, onOver: () => {} };
  const child = new IncomingChild(options as unknown as ConstructorParameters<typeof IncomingChild>[0]);
  const start = (run = false) =>
    child.start({ transfer: TRANSFER, deviceState: new Uint8Array(8), run }, session as never);
  return { child, start, record, loads, saved, resuming, resumed, removing };
}

describe("a child that is being ended", () => {
  test("is not let run, and is not said to run when its end overtakes that", async (context) => {
    const directory = mkdtempSync(join(tmpdir(), "ramet-child-"));
    context.after(() => rmSync(directory, { recursive: true }));
    const { child, start, resuming, resumed, removing } = migrated(directory);
    await start();
    assert.equal(child.isHeld, true);
    const run = child.run();
    await resuming.promise;
    const cancelled = child.cancel("by a test");
    resumed.resolve({ resumedAtUs: 0 });
    await assert.rejects(run, { code: "has-run" });
    await assert.rejects(child.run(), { code: "has-run" });
    await assert.rejects(child.cancel("once more"), { code: "has-run" });
    assert.equal(child.isHeld, false);
    removing.resolve();
    await cancelled;
  });
});

describe("a fork's child that is to run", () => {
  test("is let run by its emulator as soon as that has loaded it, which is noted before and after", async (context) => {
    const directory = mkdtempSync(join(tmpdir(), "ramet-child-"));
    context.after(() => rmSync(directory, { recursive: true }));
    const { child, start, record, loads } = migrated(directory, "fork");
    await start(true);
    assert.deepEqual(loads, ["starting, and runs"]);
    assert.equal(record.record.step, "running");
    assert.deepEqual(await child.run(), { loadUs: 0, runUs: 0 }, "asking again is answered");
  });

  test("is loaded while its record is on its way to the disk, and let run when that is there", async (context) => {
    const directory = mkdtempSync(join(tmpdir(), "ramet-child-"));
    context.after(() => rmSync(directory, { recursive: true }));
    const { start, loads, saved, resuming, resumed } = migrated(directory, "fork", false);
    const started = start(true);
    let isResumed = false;
    void resuming.promise.then(() => (isResumed = true));
    await turn();
    assert.deepEqual([loads, isResumed], [["loading, held"], false]);
    saved.resolve();
    await resuming.promise;
    resumed.resolve({ resumedAtUs: 0 });
    await started;
  });

  test("is held when it was asked to be", async (context) => {
    const directory = mkdtempSync(join(tmpdir(), "ramet-child-"));
    context.after(() => rmSync(directory, { recursive: true }));
    const { child, start, loads } = migrated(directory, "fork");
    await start(false);
    assert.deepEqual(loads, ["loading, held"]);
    assert.equal(child.isHeld, true);
  });
});
