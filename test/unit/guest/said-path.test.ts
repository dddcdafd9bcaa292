import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { saidPath } from "../../../src/guest/said-path.js";

test("a process is told the name alone of a file in the directory it works in, and the whole path of any other", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ramet-test-"));
  const child = spawn("sleep", ["60"], { cwd: directory, stdio: "ignore" });
  try {
    await once(child, "spawn");
    assert.equal(saidPath(child.pid ?? 0, join(directory, "state")), "state");
    assert.equal(saidPath(child.pid ?? 0, join(tmpdir(), "state")), join(tmpdir(), "state"));
    assert.equal(
      saidPath(child.pid ?? 0, join(directory, "none", "state")),
      join(directory, "none", "state"),
    );
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
    rmSync(directory, { recursive: true });
  }
  assert.equal(saidPath(child.pid ?? 0, join(directory, "state")), join(directory, "state"));
});
