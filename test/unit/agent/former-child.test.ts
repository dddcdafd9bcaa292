import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { deferred, LOCAL_IDENTITY, silentLog, type Deferred } from "../../../src/base/index.js";
import { drainTransfers } from "../../../src/agent/drain.js";
import { ChainWorks } from "../../../src/agent/disks/chain-works.js";
import { Exchanges } from "../../../src/agent/exchange/exchanges.js";
import type { Services } from "../../../src/agent/services.js";
import type { BootUploads } from "../../../src/agent/store/boot-uploads.js";
import { IncomingChild } from "../../../src/agent/transfers/incoming-child.js";
import { IncomingTransfers } from "../../../src/agent/transfers/incoming-transfers.js";
import { RecordFile, type ChildRecord } from "../../../src/agent/transfers/transfer-record.js";
import { ManualClock } from "../../support/lane-clock.js";
import { idleThread } from "./fakes.js";

const TRANSFER = 9;
const CONTEXT = {
  session: { identity: LOCAL_IDENTITY, onEnd: () => {}, sendEvent: () => true },
} as never;

/** A host whose agent was restarted: it has the child as a guest, and knows nothing of its transfer. */
function restarted(state: string, parent: object = {}, former: object[] = []) {
  const guest = {
    name: "web",
    state,
    isLive: !["crashed", "stopped"].includes(state),
    record: { state, parent: { transfer: TRANSFER, kind: "migrate", ...parent }, config: { name: "web" } },
  };
  const removed: unknown[] = [];
  const registry = {
    isWhole: true,
    list: () => [guest],
    remove: async (one: unknown) => void removed.push(one),
  };
  const formerChildren = { of: () => former, requireWhole: () => {} };
  const configuration = { name: "b" };
  const clock = new ManualClock();
  const services = { registry, formerChildren, configuration, clock, log: silentLog } as unknown as Services;
  const incoming = new IncomingTransfers(services, {} as BootUploads);
  return { incoming, guest, removed };
}

describe("a child whose transfer this agent does not know any more", () => {
  test("is removed before its parent hears that it is gone", async () => {
    const { incoming, guest, removed } = restarted("receiving");
    await assert.rejects(incoming.run({ transfer: TRANSFER }, CONTEXT), { code: "bad-state" });
    assert.deepEqual(removed, []);
    assert.deepEqual(await incoming.cancel({ transfer: TRANSFER, reason: "by a test" }, CONTEXT), {});
    assert.deepEqual(removed, [guest]);
  });

  test("is never said to be gone when it is a guest that runs", async () => {
    const { incoming, removed } = restarted("running");
    assert.deepEqual(await incoming.run({ transfer: TRANSFER }, CONTEXT), { loadUs: 0, runUs: 0 });
    const cancelled = incoming.cancel({ transfer: TRANSFER, reason: "by a test" }, CONTEXT);
    await assert.rejects(cancelled, { code: "bad-state" });
    assert.deepEqual(removed, []);
  });

  test("is gone when it was a fork's and its emulator is, or when it never was", async () => {
    const { incoming } = restarted("crashed", { kind: "fork" });
    await assert.rejects(incoming.run({ transfer: TRANSFER }, CONTEXT), { code: "no-such-transfer" });
    await assert.rejects(incoming.cancel({ transfer: 1, reason: "" }, CONTEXT), { code: "no-such-transfer" });
  });

  test("has run when it was migrated and its emulator has ended, or it is kept without all its memory", async () => {
    for (const state of ["crashed", "stopped", "paused"]) {
      const { incoming } = restarted(state);
      await assert.rejects(incoming.run({ transfer: TRANSFER }, CONTEXT), {
        code: "has-run",
        message: `guest web, the child of transfer 9, has run on b; it is ${state} there`,
      });
      assert.deepEqual(
        await incoming.fence({ transfer: TRANSFER, reason: "" }, CONTEXT),
        {},
        "it stands still",
      );
    }
  });

  test("has run when it was removed, whoever asks what; only one that was complete may run elsewhere", async () => {
    const left = { transfer: TRANSFER, guest: "web", complete: true, movedTo: "c", leftAtMs: 1 };
    const moved = restarted("running", { transfer: 1 }, [left]).incoming;
    const about = { transfer: TRANSFER, reason: "" };
    const wentOn = { code: "has-run", message: /has run on b, with all its memory; it went on to c/ };
    await assert.rejects(moved.run(about, CONTEXT), wentOn);
    await assert.rejects(moved.show(about, CONTEXT), wentOn);
    await assert.rejects(moved.cancel(about, CONTEXT), wentOn);
    await assert.rejects(moved.fence(about, CONTEXT), wentOn);
    const removed = restarted("running", { transfer: 1 }, [{ ...left, complete: false, movedTo: undefined }]);
    await assert.rejects(removed.incoming.run(about, CONTEXT), {
      code: "has-run",
      message: /is there no more/,
    });
    assert.deepEqual(await removed.incoming.fence(about, CONTEXT), {}, "it had nowhere to go on to");
    const holder = { kind: "certificate", name: "x" };
    const others = restarted("running", { transfer: 1 }, [{ ...left, holder }]).incoming;
    await assert.rejects(others.run(about, CONTEXT), { code: "no-such-transfer" });
    await assert.rejects(others.fence(about, CONTEXT), { code: "refused" });
  });
});

/** A forked child that an earlier agent had loaded and an earlier lane completed, on an emulator in the hands of the test. */
function loaded(directory: string, { kind = "fork", step = "loaded", whole = true } = {}) {
  const resumes: Deferred<{ resumedAtUs: number }>[] = [];
  const resume = () => {
    const answer = deferred<{ resumedAtUs: number }>();
    resumes.push(answer);
    return answer.promise;
  };
  const guest = {
    name: "web",
    state: "receiving",
    record: {},
    log: silentLog,
    config: { network: { mode: "none" } },
    hasEmulator: true,
    get live() {
      return live;
    },
    occupy: () => () => {},
    onExit: () => () => {},
    note: (change: { state: string }) => (guest.state = change.state),
  };
  const services = {
    clock: new ManualClock(),
    configuration: { name: "b", limits: { migrationLeaseSeconds: 60 } },
    book: { add: () => {} },
    paths: { guestMemory: () => directory },
    faults: idleThread,
    lanesAhead: { take: () => undefined },
  };
  const installed = () => [{ first: 0, count: whole ? 16 : 8 }];
  const memory = { pageCount: 16, fill: () => {}, installed, release: () => {} };
  const live = {
    emulator: { resume, status: async () => "paused", announce: async () => {} },
    memory: { fillable: () => memory },
  };
  const record = RecordFile.create(directory, {
    version: 1,
    side: "child",
    transfer: TRANSFER,
    params: {
      transfer: TRANSFER,
      kind,
      parent: { guest: "web", host: "a" },
      parentUrl: "ws://127.0.0.1:9",
      pageCount: 16,
    },
    holder: LOCAL_IDENTITY,
    step,
    incarnation: 1,
    startedAtMs: 0,
  } as unknown as ChildRecord);
  writeFileSync(join(directory, "zeros"), new Uint8Array(2));
  const options = { services, record, guest, live, onOver: () => {} };
  const child = new IncomingChild(options as unknown as ConstructorParameters<typeof IncomingChild>[0]);
  return { child, guest, resumes, record, services, live };
}

describe("a child whose last page comes while it is being let run", () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-child-"))));
  afterEach(() => rmSync(directory, { recursive: true }));

  test("runs, and is said to", async () => {
    const { child, guest, resumes } = loaded(directory);
    const run = child.run();
    child.begin();
    await turn();
    assert.deepEqual([guest.state, resumes.length], ["paused", 1]);
    resumes[0]?.resolve({ resumedAtUs: 0 });
    await run;
    assert.equal(guest.state, "running");
  });

  test("of a migration is not cancelled by who cannot know whether it ran", async () => {
    const { child, resumes } = loaded(directory, { kind: "migrate", step: "running" });
    await assert.rejects(child.cancel("by a test"), { code: "bad-state" });
    assert.equal(resumes.length, 0);
  });

  test("of a migration goes on when its parent's agent says so", async () => {
    const { child, guest, resumes } = loaded(directory, { kind: "migrate", step: "running" });
    await child.settle();
    await turn();
    assert.equal(resumes.length, 0, "nobody is there who could know that the parent does not run");
    const run = child.run();
    await turn();
    resumes[0]?.resolve({ resumedAtUs: 0 });
    await run;
    assert.deepEqual([resumes.length, guest.state], [1, "receiving"]);
  });

  test("is let run again when its emulator had not answered", async () => {
    const { child, guest, resumes } = loaded(directory);
    const run = child.run();
    resumes[0]?.reject(new Error("timed out"));
    await assert.rejects(run);
    child.begin();
    await turn();
    assert.deepEqual([guest.state, resumes.length], ["paused", 2]);
    resumes[1]?.resolve({ resumedAtUs: 0 });
    await turn();
    assert.equal(guest.state, "running");
  });
});

test("an agent that stops waits for a transfer to wind down after it was told to end", async () => {
  const clock = new ManualClock();
  const entry = { transfer: 1, kind: "fork", phase: "pausing", commands: { cancel: async () => {} } };
  const active: object[] = [entry];
  const underWay = { exchanges: new Exchanges(), swaps: new Exchanges(), chains: new ChainWorks() };
  const services = { clock, log: silentLog, configuration: { name: "a" }, book: { active }, ...underWay };
  let drained = false;
  const drain = drainTransfers(services as unknown as Services, {
    drainMs: 0,
    hurried: new Promise(() => {}),
  });
  void drain.then(() => (drained = true));
  for (let step = 0; step < 10; step += 1) {
    await turn();
    clock.advance(50);
  }
  assert.equal(drained, false, "its guest may still be stopped");
  active.pop();
  for (let step = 0; step < 3; step += 1) {
    await turn();
    clock.advance(50);
  }
  await drain;
});

/** A forked child that an earlier agent was loading and had told to run, in the hands of a new one; its emulator answers with each of `answers` in turn. */
async function found(directory: string, answers: string[]) {
  const { guest, record, services, live } = loaded(directory, { step: "starting", whole: false });
  const said: string[] = [];
  const emulator = {
    status: async () => {
      const answer = answers.shift() ?? "running";
      said.push(answer);
      return answer;
    },
    stop: async ({ forGood }: { forGood: boolean }) => void said.push(forGood ? "stop for good" : "stop"),
    resume: async () => void said.push("resume"),
  };
  const removed: boolean[] = [];
  const registry = {
    isWhole: true,
    list: () => [],
    remove: async (_guest: unknown, { ran }: { ran: boolean }) => void removed.push(ran),
  };
  const former = { of: () => [], requireWhole: () => {} };
  const exchanges = new Exchanges();
  const all = { ...services, registry, exchanges, formerChildren: former, log: silentLog };
  const incoming = new IncomingTransfers(all as unknown as Services, {} as BootUploads);
  const one = { ...guest, id: "0", live: { ...live, emulator } };
  const settle = await incoming.recover(one as never, record);
  const phase = async () => (await incoming.show({ transfer: TRANSFER }, CONTEXT)).phase;
  return { incoming, settle, phase, said, removed, clock: services.clock, record };
}

describe("a child that an earlier agent was loading and had told to run", () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-child-"))));
  afterEach(() => rmSync(directory, { recursive: true }));

  test("is nobody's word before its emulator has answered, and is not abandoned until then", async () => {
    const { incoming, phase, removed, clock, settle } = await found(directory, ["running"]);
    assert.equal(await phase(), "starting");
    await assert.rejects(incoming.run({ transfer: TRANSFER }, CONTEXT), { code: "not-ready" });
    clock.advance(60_000);
    assert.deepEqual(removed, []);
    await settle();
    assert.equal(await phase(), "paging");
    assert.deepEqual(await incoming.run({ transfer: TRANSFER }, CONTEXT), { loadUs: 0, runUs: 0 });
  });

  test("is removed when it waits for its state still, and has been kept from running before that is asked last", async () => {
    const { settle, said, removed, record, phase } = await found(directory, ["incoming", "incoming"]);
    await settle();
    assert.deepEqual(said, ["incoming", "stop for good", "incoming"]);
    assert.deepEqual([removed, await phase(), record.record.step], [[false], "cancelled", "starting"]);
  });

  test("is let run on when it came to run, or to be loaded, while it was asked", async () => {
    const { settle, said, removed, record, phase } = await found(directory, ["incoming", "paused", "paused"]);
    await settle();
    assert.deepEqual(said, ["incoming", "stop for good", "paused", "paused", "resume"]);
    assert.deepEqual([removed, await phase(), record.record.step], [[], "paging", "running"]);
  });

  test("is not said to have run when its emulator has ended", async () => {
    const { settle, record } = await found(directory, ["ended"]);
    await settle();
    assert.equal(record.record.step, "starting");
  });
});
