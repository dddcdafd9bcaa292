import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const DEADLINE_MS = 60_000;

/** A run whose test has started what tests start, in the ways that are hard to end: the last line says who is there. */
const SCRIPT = `#!/usr/bin/env bash
set -euo pipefail
source ${ROOT}scripts/lib/common.sh
source ${ROOT}scripts/lib/leftovers.sh
source ${ROOT}scripts/lib/run.sh
begin_run "$0" "$@"
in_test() {
  sleep 600 &
  local marked=$!
  setsid bash -c 'trap "" TERM; for ((;;)); do sleep 600; done' &
  local stubborn=$!
  : >"$RAMET_TEST_SCRATCH/ram"
  env -i "$(command -v setsid)" "$(command -v tail)" -f "$RAMET_TEST_SCRATCH/ram" &
  local unmarked=$!
  while ! grep -qs tail "/proc/$unmarked/cmdline"; do sleep 0.05; done
  echo "$RAMET_TEST_SCRATCH" $BASHPID $marked $stubborn $unmarked
  wait
}
await in_test
`;

describe(
  "a run of tests ends all it started and removes its directory, however it ends",
  { concurrency: true },
  () => {
    let directory: string;
    before(() => {
      directory = mkdtempSync(join(tmpdir(), "ramet-run-"));
      writeFileSync(join(directory, "run"), SCRIPT, { mode: 0o755 });
    });
    after(() => rmSync(directory, { recursive: true }));

    for (const [how, code] of [
      ["SIGTERM", 143],
      ["SIGINT", 130],
      ["SIGHUP", 129],
      ["what it waits for is killed", 137],
    ] as const) {
      test(how, { timeout: DEADLINE_MS }, async () => {
        const run = spawn(join(directory, "run"), { stdio: ["ignore", "pipe", "pipe"] });
        const exited = once(run, "exit");
        const [line] = (await once(run.stdout, "data")) as [Buffer];
        const [scratch = "", ...pids] = line.toString().trim().split(" ");
        assert.ok(existsSync(scratch));
        assert.equal(pids.filter(isRunning).length, 4);
        if (code === 137) process.kill(Number(pids[0]), "SIGKILL");
        else run.kill(how);
        assert.deepEqual(await exited, [code, null]);
        run.stdout.destroy();
        assert.deepEqual(pids.filter(isRunning), []);
        assert.ok(!existsSync(scratch));
      });
    }
  },
);

function isRunning(pid: string): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
