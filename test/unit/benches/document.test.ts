import assert from "node:assert/strict";
import { test } from "node:test";
import { withTables } from "../../../scripts/benches/document.js";
import { metricOf } from "../../../scripts/benches/statistics.js";
import { read } from "../tidy/files.js";
import { SUITES } from "../../../scripts/benches/suites.js";

const metrics = {
  sweep_rate: metricOf("MiB/s", [1]),
  sweep_cpu: metricOf("s/GiB", [2]),
  sweep_rate_qemu_precopy: metricOf("MiB/s", [3]),
};

function block(suite: string, names: string, table: string): string {
  return `before\n<!-- bench ${suite}: ${names} -->\n\n${table}\n\n<!-- end of bench -->\nafter\n`;
}

function namesIn(document: string): string[] {
  return [...document.matchAll(/^\| `(\w+)` /gm)].map((match) => match[1] ?? "");
}

test("a table is made anew of the metrics it names, in that order, and nothing around it changes", () => {
  const document = withTables(block("sweep", "sweep_cpu sweep_rate*", "| old |"), {
    suite: "sweep",
    metrics,
  });
  assert.deepEqual(namesIn(document), ["sweep_cpu", "sweep_rate", "sweep_rate_qemu_precopy"]);
  assert.ok(document.startsWith("before\n<!-- bench sweep: sweep_cpu sweep_rate* -->\n\n| name "));
  assert.ok(document.endsWith("\n\n<!-- end of bench -->\nafter\n"));
  assert.equal(withTables(document, { suite: "sweep", metrics }), document, "once more changes nothing");
});

test("tables of other suites, and of what was not measured, stay", () => {
  const document = block("pause", "parent_pause", "| old |") + block("sweep", "sweep_lz4*", "| kept |");
  assert.equal(withTables(document, { suite: "sweep", metrics }), document);
});

test("a document without a table of the suite is an error", () => {
  assert.throws(() => withTables("# Nothing\n", { suite: "sweep", metrics }), /no table of sweep/);
});

test("docs/performance.md has tables, each of a suite that there is", () => {
  const named = [...read("docs/performance.md").matchAll(/<!-- bench ([a-z-]+): /g)].map((match) => match[1]);
  assert.ok(named.length > 0);
  assert.deepEqual(
    named.filter((name) => name === undefined || !Object.hasOwn(SUITES, name)),
    [],
  );
});
