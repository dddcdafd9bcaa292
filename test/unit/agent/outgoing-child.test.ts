import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, beforeEach, describe, test } from "node:test";
import { LOCAL_IDENTITY, silentLog } from "../../../src/base/index.js";
import { TransferError } from "../../../src/transfer/index.js";
import { LearnedCompression } from "../../../src/agent/transfers/compression.js";
import { OutgoingChild } from "../../../src/agent/transfers/outgoing-child.js";
import {
  compressionOf,
  flowOf,
  readTransferRecords,
  RecordFile,
  type ParentRecord,
} from "../../../src/agent/transfers/transfer-record.js";
import { ManualClock } from "../../support/lane-clock.js";

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-outgoing-"))));
afterEach(() => rmSync(directory, { recursive: true }));

/** The parent's side of a fork whose agent ended after it had noted that the child is told to start; the child's host says `phases`, one after the other. */
function toldByAnEarlierAgent(phases: string[], kind: ParentRecord["kind"] = "fork") {
  const clock = new ManualClock();
  const calls: string[] = [];
  const client = {
    onEvent: () => () => {},
    call: async (method: string) => {
      calls.push(method);
      return method === "peer.show" ? { transfer: 7, phase: phases.shift(), duplicates: 0 } : {};
    },
  };
  const services = {
    clock,
    peers: {
      compression: new LearnedCompression(),
      link: async () => ({ client, identity: LOCAL_IDENTITY }),
    },
    routes: { open: () => () => {} },
    book: { add: () => {} },
  };
  const instant = {
    pageCount: 16,
    copies: { pages: 0, budgetPages: 1 },
    addReader: () => {},
    removeReader: () => void calls.push(`let go with ${readdirSync(directory).length} records`),
    copiedPages: () => [],
    firstLost: () => undefined,
    settle: () => {},
  };
  const record = RecordFile.create(directory, {
    version: 1,
    side: "parent",
    transfer: 7,
    kind,
    step: "told",
    holder: { kind: LOCAL_IDENTITY.kind, name: LOCAL_IDENTITY.name },
    url: "ws://192.0.2.2:7070",
    host: "b",
    peerGuest: "web-1",
    token: "t".repeat(32),
    verify: false,
    paused: false,
    compress: false,
    sweep: "on",
    startedAtMs: 0,
  });
  const options = { services, guest: { name: "web", log: silentLog }, instant, record, abort: () => {} };
  const child = new OutgoingChild(options as unknown as ConstructorParameters<typeof OutgoingChild>[0]);
  child.goOn({ digests: undefined, decided: true });
  const wait = async (ms: number): Promise<void> => {
    clock.advance(ms);
    for (let turns = 0; turns < 5; turns += 1) await turn();
  };
  return { child, calls, record, wait };
}

describe("the child of a fork that an earlier agent may have told to start", () => {
  test("is ended when its device state never came to it, whatever it has of its memory", async () => {
    const { child, calls, wait } = toldByAnEarlierAgent(["preparing"]);
    assert.equal(child.entry.phase, "starting");
    await wait(100);
    assert.equal(child.session.phase.phase, "failed");
    assert.deepEqual(calls, ["peer.show", "let go with 0 records", "peer.cancel"]);
    await child.finish();
    assert.equal(child.entry.phase, "failed");
    assert.match(child.entry.view().error?.message ?? "", /before the child had its device state/);
  });

  test("is waited for while it is loaded, and then given the rest of its memory", async () => {
    const { child, calls, record, wait } = toldByAnEarlierAgent(["starting", "paging"]);
    await wait(100);
    assert.deepEqual([child.entry.phase, record.record.step, calls], ["starting", "told", ["peer.show"]]);
    await wait(2000);
    assert.deepEqual([child.entry.phase, record.record.step], ["paging", "paging"]);
    assert.deepEqual(calls, ["peer.show", "peer.show"]);
    child.detach();
  });

  test("is sent its memory as its user says, which the next agent finds", async () => {
    const { child, record } = toldByAnEarlierAgent([]);
    const { entry } = child;
    entry.commands?.steer({ rateLimitBytesPerSecond: 5000, priority: "low" });
    entry.commands?.steer({ sweep: "held", compression: "auto" });
    assert.deepEqual(entry.view().compression, { choice: "auto", now: "none" });
    const shown = () => {
      const { sweep, rateLimitBytesPerSecond, priority } = entry.view();
      return { sweep, rateLimitBytesPerSecond, priority };
    };
    const [left] = readTransferRecords(directory).parents;
    assert.deepEqual(flowOf((left ?? record).record), { rateBytesPerSecond: 5000, priority: "low" });
    assert.equal(left?.record.sweep, "held");
    assert.deepEqual(compressionOf((left ?? record).record), { choice: "auto", first: false });
    assert.deepEqual(shown(), { sweep: "held", rateLimitBytesPerSecond: 5000, priority: "low" });
    entry.commands?.steer({ rateLimitBytesPerSecond: 0 });
    assert.deepEqual(shown(), { sweep: "held", rateLimitBytesPerSecond: undefined, priority: "low" });
    assert.equal(readTransferRecords(directory).parents[0]?.record.rateLimitBytesPerSecond, undefined);
    child.detach();
  });

  test("is ended when its user says so meanwhile", async () => {
    const { child, calls, wait } = toldByAnEarlierAgent([]);
    await child.entry.commands?.cancel("by a test");
    await child.finish();
    await wait(100);
    assert.deepEqual([child.entry.phase, calls], ["cancelled", ["let go with 0 records", "peer.cancel"]]);
  });

  test("has no record any more once its pages may change, unless its parent was stopped for good", () => {
    for (const [kind, records] of [
      ["fork", 0],
      ["migrate", 1],
    ] as const) {
      const { child, calls } = toldByAnEarlierAgent([], kind);
      child.session.fail(new TransferError("stalled", "it took no page"));
      assert.deepEqual(calls, [`let go with ${records} records`]);
      child.detach();
    }
  });
});
