import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { metricOf } from "../../../scripts/benches/statistics.js";
import { SUITES } from "../../../scripts/benches/suites.js";

const ROOT = new URL("../../..", import.meta.url).pathname;

function bench(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(`${ROOT}scripts/bench`, args, { encoding: "utf8", timeout: 60_000 });
}

test("--help lists the suites there are", () => {
  const { status, stdout } = bench("--help");
  assert.equal(status, 0);
  const list = stdout.split("Suites:\n")[1]?.split("\n\n", 1)[0] ?? "";
  const listed = [...list.matchAll(/^ {2}([a-z-]+)(?: {2,}|$)/gm)].map((match) => match[1] ?? "");
  assert.deepEqual(listed.toSorted(), Object.keys(SUITES).toSorted());
});

test("a suite that is not there, or none, is one clear error", () => {
  const { status, stderr } = bench("pauze");
  assert.equal(status, 2);
  assert.equal(stderr, 'bench: there is no suite "pauze"; scripts/bench --help lists them\n');
  assert.equal(bench().status, 2);
});

test("show makes a table and charts of what a run has written", () => {
  const directory = mkdtempSync(join(tmpdir(), "bench-"));
  try {
    const file = join(directory, "pause.json");
    const metrics = { parent_pause_1GiB: metricOf("ms", [1, 2, 3]) };
    writeFileSync(file, JSON.stringify({ suite: "pause", machine: { processors: 2 }, runs: 3, metrics }));
    const { status, stdout } = bench("show", file, "--plot", join(directory, "plots"));
    assert.equal(status, 0);
    assert.match(stdout, /^pause: 3 runs; 2$/m);
    assert.match(stdout, /^\| `parent_pause_1GiB` \| ms \| 2\.00 \| 3\.00 \| 3\.00 \| – \| 3\.00 \| 3 \|$/m);
    assert.deepEqual(readdirSync(join(directory, "plots")), ["pause-by-memory.svg"]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
