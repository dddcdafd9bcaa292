import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { silentLog } from "../../../src/base/index.js";
import { RemoteError, type ChildReport } from "../../../src/control/index.js";
import { PageDigests } from "../../../src/transfer/index.js";
import { Inquiry } from "../../../src/agent/transfers/inquiry.js";
import {
  keepDigests,
  readDigests,
  readTransferRecords,
  RecordFile,
  removeDigests,
} from "../../../src/agent/transfers/transfer-record.js";
import { ManualClock } from "../../support/lane-clock.js";
import { fakeChildRecord, fakeParentRecord } from "./fakes.js";

const PARENT = fakeParentRecord();

const CHILD = fakeChildRecord();

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-record-"))));
afterEach(() => rmSync(directory, { recursive: true }));

describe("the record of a transfer", () => {
  test("is found by the next agent as it was last written", () => {
    const parent = RecordFile.create(directory, PARENT);
    const child = RecordFile.create(directory, CHILD);
    parent.update({ step: "told", peerGuest: "web-2" });
    child.update({ step: "running", complete: { verify: { checked: 16384, mismatches: 0 } } });
    const left = readTransferRecords(directory);
    assert.deepEqual(
      left.parents.map(({ record }) => record),
      [{ ...PARENT, step: "told", peerGuest: "web-2" }],
    );
    assert.deepEqual(
      left.children.map(({ record }) => record),
      [{ ...CHILD, step: "running", complete: { verify: { checked: 16384, mismatches: 0 } } }],
    );
    for (const file of [...left.parents, ...left.children]) file.remove();
    assert.deepEqual(readdirSync(directory), []);
  });

  test("stays as it is once it was left to the next agent", () => {
    const file = RecordFile.create(directory, PARENT);
    file.leave();
    file.update({ step: "complete" });
    file.remove();
    assert.equal(readTransferRecords(directory).parents[0]?.record.step, "preparing");
  });

  test("keeps what it said when it cannot be written", () => {
    const gone = join(directory, "gone");
    assert.throws(() => RecordFile.create(gone, PARENT), { code: "ENOENT" });
    const file = RecordFile.opened(join(gone, "transfer-7-parent.json"), PARENT);
    assert.throws(() => file.update({ step: "told" }), { code: "ENOENT" });
    assert.equal(file.record.step, "preparing");
  });

  test("is refused when it is damaged or of another version; other files are none", () => {
    writeFileSync(join(directory, "ram"), "");
    writeFileSync(join(directory, "transfer-7-parent.json.unfinished"), "{");
    assert.deepEqual(readTransferRecords(directory), { parents: [], children: [] });
    assert.deepEqual(readTransferRecords(join(directory, "none")), { parents: [], children: [] });
    for (const text of ["{", JSON.stringify({ ...PARENT, version: 2 }), JSON.stringify(CHILD)]) {
      writeFileSync(join(directory, "transfer-7-parent.json"), text);
      assert.throws(() => readTransferRecords(directory), {
        code: "bad-record",
        message: /transfer-7-parent/,
      });
    }
  });

  test("digests are read for the memory they were kept of", () => {
    const digests = new PageDigests(4);
    for (let page = 0; page < 4; page += 1) digests.setContent(page, new Uint8Array(4096).fill(page));
    keepDigests(directory, digests);
    assert.deepEqual(readDigests(directory, 4).differences(digests), []);
    assert.throws(() => readDigests(directory, 5), { code: "bad-record" });
    removeDigests(directory);
    assert.throws(() => readDigests(directory, 4), { code: "bad-record" });
  });
});

describe("an inquiry about a child", () => {
  function inquiry(answers: (ChildReport | Error)[]) {
    const clock = new ManualClock();
    const told: string[] = [];
    const scene = { clock, told, asked: 0, away: true };
    const it = new Inquiry({
      ask: async () => {
        scene.asked += 1;
        const answer = answers.shift() ?? new Error("out of reach");
        if (answer instanceof Error) throw answer;
        return answer;
      },
      isDue: () => scene.away,
      onReport: ({ phase }) => told.push(phase),
      onGone: () => told.push("gone"),
      clock,
      log: silentLog,
    });
    const pass = async (ms: number) => {
      clock.advance(ms);
      await turn();
    };
    return { it, scene, pass };
  }

  test("is made while its lanes are away, less and less often, until it is gone", async () => {
    for (const code of ["no-such-transfer", "has-run"]) {
      const gone = new RemoteError(code, "no");
      const notReady = new RemoteError("not-ready", "later");
      const { it, scene, pass } = inquiry([{ transfer: 7, phase: "paging" }, new Error("x"), notReady, gone]);
      it.start();
      for (const ms of [1000, 2000, 4000]) await pass(ms);
      assert.deepEqual(scene.told, ["paging"]);
      await pass(8000);
      assert.deepEqual(scene.told, ["paging", "gone"]);
      assert.equal(scene.clock.pending, 0);
    }
  });

  test("is not made while they are there, nor after its end", async () => {
    const { it, scene, pass } = inquiry([]);
    scene.away = false;
    it.start();
    for (let second = 0; second < 5; second += 1) await pass(1000);
    assert.equal(scene.asked, 0);
    it.stop();
    it.start();
    assert.equal(scene.clock.pending, 0);
  });
});
