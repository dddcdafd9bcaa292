import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readRun, RunFile, type RunRecord } from "../../../src/agent/exchange/run-record.js";

let directory: string;
before(() => (directory = mkdtempSync(join(tmpdir(), "ramet-exchange-run-"))));
after(() => rmSync(directory, { recursive: true, force: true }));

const RECORD: RunRecord = {
  version: 1,
  emulator: "10.0",
  parallel: 2,
  waitMs: 1000,
  isStopped: false,
  startedAtMs: 1_700_000_000_000,
  guests: [{ id: "00000000-0000-4000-8000-000000000001", name: "web", standing: "waiting", tries: 0 }],
};

test("the record of an exchange of all guests is what was last said, however many writes were asked for", async () => {
  const path = join(directory, "run.json");
  assert.equal(readRun(path), undefined);
  const file = new RunFile(path, structuredClone(RECORD));
  const writes: Promise<void>[] = [];
  for (let tries = 1; tries <= 20; tries += 1) {
    (file.record.guests[0] as { tries: number }).tries = tries;
    writes.push(file.save());
  }
  await Promise.all(writes);
  assert.equal(readRun(path)?.record.guests[0]?.tries, 20);
  file.record.endedAtMs = 1;
  await file.save();
  assert.deepEqual(readRun(path)?.record, { ...file.record });
  assert.deepEqual(readdirSync(directory), ["run.json"], "nothing unfinished is left");
});

test("a record that is not one is refused by its path", () => {
  const path = join(directory, "bad.json");
  for (const text of [
    "{",
    "{}",
    JSON.stringify({ ...RECORD, version: 2 }),
    JSON.stringify({ ...RECORD, parallel: 0 }),
  ]) {
    writeFileSync(path, text);
    assert.throws(() => readRun(path), { code: "bad-record", message: /bad\.json/ });
  }
});
