import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { readIfThere, writeAtomically } from "../../../src/agent/store/files.js";
import { readTail, removeRotating, RotatingFile } from "../../../src/agent/store/rotating-file.js";
import { StateLock } from "../../../src/agent/store/state-lock.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-stores-"));
after(() => rmSync(scratch, { recursive: true }));

describe("a rotating file", () => {
  test("keeps the end and stays within its bound", () => {
    const path = join(scratch, "console.log");
    const file = new RotatingFile(path, 1000);
    for (let line = 0; line < 500; line += 1) file.append(Buffer.from(`line ${line}\n`));
    const kept = readTail(path, 10_000);
    assert.ok(kept.length <= 1000);
    assert.ok(kept.toString().endsWith("line 498\nline 499\n"));
    assert.equal(readTail(path, 9).toString(), "line 499\n");
    file.close();
    file.append(Buffer.from("after the end"));
    const again = new RotatingFile(path, 1000);
    again.append(Buffer.from("reopened\n"));
    assert.ok(readTail(path, 100).toString().endsWith("line 499\nreopened\n"));
    again.close();
    removeRotating(path);
    assert.deepEqual(readdirSync(scratch), []);
    assert.equal(readTail(path, 100).length, 0);
  });
});

describe("an atomic write", () => {
  test("replaces the file and leaves nothing beside it", async () => {
    const path = join(scratch, "record.json");
    assert.equal(await readIfThere(path), undefined);
    await writeAtomically(path, "one");
    await Promise.all([writeAtomically(path, "two"), writeAtomically(path, "two")]);
    assert.equal(readFileSync(path, "utf8"), "two");
    assert.deepEqual(readdirSync(scratch), ["record.json"]);
    await assert.rejects(writeAtomically(join(scratch, "none", "x"), "y"), { code: "ENOENT" });
  });
});

describe("the lock of a state directory", () => {
  const directory = join(scratch, "state");

  test("keeps a second agent out until the first is gone", () => {
    const lock = StateLock.take(directory);
    assert.throws(() => StateLock.take(directory), {
      code: "state-directory-locked",
      message: new RegExp(`another agent \\(process ${process.pid}\\) runs on it`),
    });
    lock.release();
    StateLock.take(directory).release();
  });

  test("does not outlive a process that was killed", () => {
    const module = new URL("../../../src/agent/store/state-lock.ts", import.meta.url).pathname;
    const script = `import { StateLock } from ${JSON.stringify(module)}; StateLock.take(${JSON.stringify(directory)}); process.kill(process.pid, "SIGKILL");`;
    assert.throws(() =>
      execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
        stdio: "pipe",
      }),
    );
    StateLock.take(directory).release();
  });
});
