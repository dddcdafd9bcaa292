import assert from "node:assert/strict";
import { test } from "node:test";
import { Bitmap, CodedError, SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  forkGuest,
  Instant,
  migrateGuest,
  ParentSession,
  PrecopySource,
  TransferError,
  type ChildTarget,
  type FrameLane,
  type ParentEmulator,
} from "../../../src/transfer/index.js";
import { snapshotInSteps } from "../../../src/guest/snapshot.js";
import { AfterFaultOrder } from "../../../src/transfer/sweep-order.js";
import { encodeFrame } from "../../../src/wire/index.js";
import { SimulatedCopies } from "../../support/simulation/kept.js";
import { contentOf, SimulatedMemory } from "../../support/simulation/memory.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const pages = 32;
const log = silentLog;

class GoneError extends CodedError<"gone"> {}

/** A parent with one child whose lanes lead nowhere, and what its emulator and its target were asked. */
function scene(options: { migrate?: boolean } = {}) {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, pages);
  for (let page = 0; page < pages; page += 1) memory.place(page, contentOf(page, page + 1));
  const tracking = options.migrate !== true;
  const instant = new Instant({
    memory,
    copies: new SimulatedCopies(),
    copyBudgetBytes: 1 << 20,
    tracking,
    clock,
    log,
  });
  const session = new ParentSession({ transfer: 7, instant, clock, log, compress: false, sweep: true });
  const calls: string[] = [];
  const note = (call: string) => {
    calls.push(call);
    return new Promise<void>((resolve) => clock.afterUs(5, resolve));
  };
  const emulator: ParentEmulator = {
    prepareDeviceState: () => note("prepare state").then(() => new Uint8Array(4)),
    snapshot: (work) => snapshotInSteps(emulator, work),
    stop: async () => (await note("stop"), { stoppedAtUs: 0 }),
    saveDeviceState: async () => (await note("save"), { compose: () => new Uint8Array(8) }),
    resume: async () => (await note("resume"), { resumedAtUs: 0 }),
  };
  let tellHave = (): void => {};
  const lane = (name: string): FrameLane => ({
    queuedBytes: 0,
    send: () => {},
    attach: ({ onFrame }) => {
      const have = encodeFrame({ kind: "have", last: true, runs: [] }, { transfer: 7, sequence: 1 });
      if (name === "bulk") tellHave = () => onFrame(have);
    },
    close: () => {},
  });
  const started = { loadUs: 1, runUs: 1 };
  const target: ChildTarget = {
    transfer: 7,
    host: "b",
    prepare: async () => {
      await note("prepare");
      session.acceptLane("urgent", 1, lane("urgent"));
      session.acceptLane("bulk", 1, lane("bulk"));
      tellHave();
    },
    sendAhead: () => note("send ahead"),
    start: async () => (await note("start"), started),
    run: async () => (await note("run"), started),
    cancel: () => note("cancel"),
  };
  const network = { detach: () => note("detach"), attach: () => note("attach") };
  const abort = new AbortController();
  const common = {
    emulator,
    memory,
    instant,
    verify: false,
    arrivedUs: 0,
    clock,
    log,
    onStep: () => {},
    signal: abort.signal,
  };
  const play = async <T>(work: Promise<T>): Promise<T> => {
    let over = false;
    const end = (): void => void (over = true);
    work.then(end, end);
    const tick = (): void => void (over || clock.afterUs(50, tick));
    tick();
    await clock.runUntil(() => over, 100_000);
    return work;
  };
  const fork = () => play(forkGuest({ ...common, children: [{ target, session }], paused: false }));
  const migrate = (precopy?: PrecopySource) => {
    const ahead = precopy === undefined ? {} : { precopy };
    return play(migrateGuest({ ...common, child: { target, session }, network, ...ahead }));
  };
  return { clock, memory, instant, session, emulator, target, network, calls, fork, migrate, play };
}

test("an emulator that ends in the pause fails the fork, and nothing else", async () => {
  const { clock, memory, emulator, fork, instant, calls } = scene();
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", onUnhandled);
  try {
    emulator.stop = async () => {
      memory.touch(3, contentOf(3, 99), () => {});
      await new Promise<void>((resolve) => clock.afterUs(500, resolve));
      memory.protect = () => {
        throw new GoneError("gone", "the emulator has ended");
      };
      return { stoppedAtUs: 0 };
    };
    emulator.saveDeviceState = async () => {
      await Promise.resolve();
      throw new GoneError("gone", "the emulator has ended");
    };
    await assert.rejects(fork(), { code: "gone" });
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(unhandled, []);
    assert.equal(instant.phase, "released");
    assert.equal(calls.at(-1), "cancel");
  } finally {
    process.off("unhandledRejection", onUnhandled);
  }
});

test("memory that cannot be read any more ends the session, not the agent", async () => {
  const { memory, session, instant, fork, clock } = scene();
  await fork();
  memory.read = () => {
    throw new GoneError("gone", "the memory file has been closed");
  };
  await clock.runUntil(() => session.phase.phase === "failed", 1000);
  assert.ok(session.phase.phase === "failed" && session.phase.error.code === "parent-failed");
  assert.equal(instant.phase, "released");
});

test("a child cancelled in the pause is never started; one lost while it starts is cancelled", async () => {
  const inPause = scene();
  inPause.emulator.resume = async () => {
    inPause.session.fail(new TransferError("cancelled", "by a test"));
    return { resumedAtUs: 0 };
  };
  const early = await inPause.fork();
  assert.ok(early.children[0] !== undefined && "error" in early.children[0]);
  assert.deepEqual(inPause.calls.slice(-2), ["save", "cancel"]);
  assert.equal(inPause.instant.phase, "released");

  const inStart = scene();
  inStart.target.start = async () => {
    inStart.session.fail(new TransferError("cancelled", "by a test"));
    return { loadUs: 1, runUs: 1 };
  };
  const late = await inStart.fork();
  assert.ok(late.children[0] !== undefined && "error" in late.children[0]);
  assert.equal(inStart.calls.at(-1), "cancel");
});

test("a parent whose network cannot be given back runs on all the same", async () => {
  const { emulator, network, migrate, calls } = scene({ migrate: true });
  emulator.saveDeviceState = () => Promise.reject(new GoneError("gone", "not saved"));
  network.attach = () => Promise.reject(new Error("the port is taken"));
  await assert.rejects(migrate(), { code: "gone" });
  assert.equal(calls.at(-1), "resume");
});

test("a parent whose emulator ends after the switch does not take the child with it", async () => {
  class BrokenPrecopy extends PrecopySource {
    override run = () => Promise.resolve();
    override finish = () => new Bitmap(pages);
    override releaseSlowly = () => Promise.reject(new GoneError("gone", "the emulator has ended"));
  }
  const { migrate, calls, clock, memory } = scene({ migrate: true });
  await migrate(new BrokenPrecopy({ transfer: 7, memory, clock, log, compress: false }));
  assert.equal(calls.at(-1), "run");
});

test("a parent that was not taken off its network is not put back there", async () => {
  const { emulator, migrate, calls } = scene({ migrate: true });
  emulator.stop = () => Promise.reject(new GoneError("gone", "stop was not answered"));
  await assert.rejects(migrate(), { code: "gone" });
  assert.ok(!calls.includes("attach"), calls.join(", "));
  assert.equal(calls.at(-1), "resume");
});

test("holes are told of in steps that keep nobody waiting", () => {
  const pageCount = 100_000;
  const owed = new Bitmap(pageCount);
  owed.fill();
  const sent = new Bitmap(pageCount);
  const source = { pageCount, owed, sent, hasCopy: () => false, hasCopies: false, nextData: () => undefined };
  const order = new AfterFaultOrder();
  let steps = 0;
  for (let step = order.next(source, 16); step !== undefined; step = order.next(source, 16), steps += 1) {
    assert.equal(step.kind, "hole");
    assert.ok(step.range.count <= 16384);
    sent.setRun(step.range.first, step.range.count);
  }
  assert.equal(sent.count, pageCount);
  assert.equal(steps, Math.ceil(pageCount / 16384));
});

test("a parent whose agent ended right after a pre-copy's switch can write again when it runs on", async () => {
  const clock = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(clock, 8);
  memory.track(() => {});
  memory.protect({ first: 0, count: 8 });
  let written = false;
  memory.touch(3, contentOf(3, 1), () => (written = true));
  memory.abandon();
  const copies = new SimulatedCopies();
  Instant.recover({ memory, copies, copyBudgetBytes: 1 << 20, tracking: false, clock, log });
  await clock.runUntil(() => written, 1000);
  assert.ok(memory.quiet);
});

test("a child that its host says is complete ends the session, and what it does not dial for is given up in time", async () => {
  const { session, instant, clock, play } = scene();
  await play(instant.arm());
  instant.freeze();
  session.begin({});
  session.awaitChild("the agent was restarted");
  assert.deepEqual(session.progress().lost?.why, "the agent was restarted");
  session.conclude();
  session.conclude();
  assert.equal((await session.ended).phase, "complete");
  assert.equal(instant.phase, "released");
  const impatient = new ParentSession({
    transfer: 8,
    instant: scene().instant,
    clock,
    log,
    compress: false,
    sweep: true,
    linkDeadlineMs: 1000,
  });
  impatient.awaitChild("the agent was restarted");
  const end = await play(impatient.ended);
  assert.equal(end.phase === "failed" && end.error.code, "link-lost");
});
