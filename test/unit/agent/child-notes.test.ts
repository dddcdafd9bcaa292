import assert from "node:assert/strict";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { AgentError } from "../../../src/agent/errors.js";
import { writeAll } from "../../../src/agent/store/files.js";
import { FileNotes } from "../../../src/agent/transfers/child-notes.js";

const PAGE_COUNT = 100;

describe("a child's notes", () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "ramet-notes-"))));
  afterEach(() => rmSync(directory, { recursive: true }));
  const open = (recover: boolean, verify = true) =>
    new FileNotes(directory, { pageCount: PAGE_COUNT, verify, recover });

  it("say which file system is full", (context) => {
    const full = openSync("/dev/full", "r+");
    context.after(() => closeSync(full));
    assert.throws(() => writeAll(full, new Uint8Array(16), 32, "/dev/shm/ramet/digests"), {
      code: "no-room",
      message: /^the file system of \/dev\/shm\/ramet is full: make room there/,
    });
  });

  it("are found by the next agent", () => {
    const notes = open(false);
    notes.noteZero([
      { first: 3, count: 10 },
      { first: 99, count: 1 },
    ]);
    notes.noteZero([{ first: 13, count: 1 }]);
    notes.noteDigests(98, new Uint8Array(32).fill(7));
    notes.close();
    const recovered = open(true);
    assert.deepEqual(
      [...recovered.zeros()],
      [
        { first: 3, count: 11 },
        { first: 99, count: 1 },
      ],
    );
    assert.deepEqual(recovered.digests().slice(98 * 16), new Uint8Array(32).fill(7));
    assert.deepEqual(recovered.digests().slice(0, 98 * 16), new Uint8Array(98 * 16));
    recovered.remove();
    assert.equal(existsSync(join(directory, "zeros")), false);
    assert.equal(existsSync(join(directory, "digests")), false);
  });

  it("begin empty when nothing is recovered", () => {
    const notes = open(false);
    notes.noteZero([{ first: 0, count: PAGE_COUNT }]);
    notes.close();
    const anew = open(false);
    assert.deepEqual([...anew.zeros()], []);
    anew.close();
  });

  it("are refused when they are not those of this child", () => {
    assert.throws(
      () => open(true),
      (thrown) => thrown instanceof AgentError && thrown.code === "bad-record",
    );
    open(false, false).close();
    truncateSync(join(directory, "zeros"), 3);
    assert.throws(() => open(true, false), /3 bytes, not 13/);
  });
});
