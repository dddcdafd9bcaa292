import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { SUITES } from "../../../scripts/benches/suites.js";

const ROOT = new URL("../../..", import.meta.url).pathname;

function bench(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(`${ROOT}scripts/bench`, args, { encoding: "utf8", timeout: 60_000 });
}

test("--help lists the suites there are", () => {
  const { status, stdout } = bench("--help");
  assert.equal(status, 0);
  const list = stdout.split("Suites:\n")[1]?.split("\n\n", 1)[0] ?? "";
  const listed = [...list.matchAll(/^ {2}([a-z]+) {2,}/gm)].map((match) => match[1] ?? "");
  assert.deepEqual(listed.toSorted(), Object.keys(SUITES).toSorted());
});

test("a suite that is not there, or none, is one clear error", () => {
  const { status, stderr } = bench("pauze");
  assert.equal(status, 2);
  assert.equal(stderr, 'bench: there is no suite "pauze"; scripts/bench --help lists them\n');
  assert.equal(bench().status, 2);
});
