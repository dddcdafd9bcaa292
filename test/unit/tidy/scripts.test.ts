import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { read, report, ROOT, shellScripts } from "./files.js";

/** What people and CI start here; the guests' own scripts run under their shell. */
const ours = shellScripts().filter((path) => !/^scripts\/(guest|disk-guest-parts)\//.test(path));

function run(command: string, ...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: ROOT,
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, output: `${stdout ?? ""}${stderr ?? ""}` };
}

test("shell scripts can be parsed", () => {
  const findings = shellScripts().flatMap((path) => {
    const shell = read(path).startsWith("#!/bin/sh") ? "sh" : "bash";
    const { status, output } = run(shell, "-n", path);
    return status === 0 ? [] : [output];
  });
  assert.equal(report(findings), "");
});

test("shell scripts stop at the first error", () => {
  const findings = ours
    .filter((path) => !path.endsWith(".sh") && !/^set -eu/m.test(read(path)))
    .map((path) => `${path} does not say set -eu`);
  assert.equal(report(findings), "");
});

test("no writer of a pipe is killed because its reader has read enough", () => {
  // With pipefail such a script ends with status 141, or not, as the two happen to be scheduled.
  const endsEarly = /\|\s*(head\b|grep\s+-\w*[qm]|sed\s+(-\w+\s+)?'[^']*\d?q[;' }]|awk\b[^|]*\bexit\b)/;
  const findings = ours.flatMap((path) =>
    read(path)
      .split("\n")
      .flatMap((line, index) => (endsEarly.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
  assert.equal(report(findings), "");
});

test("scripts with a first line can be run", () => {
  const findings = ours
    .filter((path) => read(path).startsWith("#!"))
    .filter((path) => {
      try {
        accessSync(join(ROOT, path), constants.X_OK);
        return false;
      } catch {
        return true;
      }
    });
  assert.deepEqual(findings, []);
});

test("shellcheck, where the machine has it, finds no errors", () => {
  if (run("shellcheck", "--version").status !== 0) return;
  const { output } = run("shellcheck", "--severity=error", "--external-sources", ...shellScripts());
  assert.equal(output, "");
});
