import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { readIfThere, writeAtomically } from "../../../src/agent/store/files.js";
import { StateLock } from "../../../src/agent/store/state-lock.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-stores-"));
after(() => rmSync(scratch, { recursive: true }));

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
