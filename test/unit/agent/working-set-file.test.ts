import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { WorkingSetFile } from "../../../src/agent/transfers/working-set-file.js";
import { ManualClock } from "../../support/lane-clock.js";

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-working-set-"))));
afterEach(() => rmSync(directory, { recursive: true }));

function open(clock = new ManualClock()) {
  const path = join(directory, "working-set");
  return { path, clock, file: new WorkingSetFile({ path, pageCount: 1000, clock, log: silentLog }) };
}

describe("the file of a working set", () => {
  test("has what was learnt soon after it was, and at the latest when it is closed", () => {
    const { path, clock, file } = open();
    const child = file.set.forChild({ learns: true });
    child.onFault(7);
    assert.ok(!existsSync(path), "faults are not held up by a file");
    clock.advance(2000);
    assert.equal(open().file.set.pages, 1);
    child.onFault(8);
    file.close();
    child.onFault(9);
    clock.advance(10_000);
    assert.equal(open().file.set.pages, 2, "nothing is written by who has let go of it");
    assert.deepEqual(readdirSync(directory), ["working-set"]);
  });

  test("is empty where there is none, and where it is no such file", () => {
    const { path, file } = open();
    assert.equal(file.set.pages, 0);
    writeFileSync(path, "?");
    assert.equal(open().file.set.pages, 0);
    rmSync(path);
    mkdirSync(path);
    assert.equal(open().file.set.pages, 0);
  });

  test("that cannot be written holds up nobody", () => {
    const { path, clock, file } = open();
    mkdirSync(path);
    mkdirSync(join(path, "in the way"));
    file.set.forChild({ learns: true }).onFault(7);
    clock.advance(2000);
    assert.equal(file.set.forChild({ learns: false }).pages, 1);
    assert.deepEqual(readdirSync(directory), ["working-set"]);
    file.close();
  });
});
