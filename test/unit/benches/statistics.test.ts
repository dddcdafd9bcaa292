import assert from "node:assert/strict";
import { test } from "node:test";
import {
  markdownOf,
  medianOf,
  metricOf,
  metricOfBuckets,
  Results,
  tableOf,
} from "../../../scripts/benches/statistics.js";

const oneTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1);

test("percentiles are samples, by nearest rank, in whatever order they came", () => {
  assert.deepEqual(metricOf("ms", oneTo(100).toReversed()), {
    unit: "ms",
    p50: 50,
    p90: 90,
    p99: 99,
    max: 100,
    n: 100,
  });
  assert.deepEqual(metricOf("ms", [7]), { unit: "ms", p50: 7, p90: 7, p99: 7, max: 7, n: 1 });
});

test("p99.9 is there only where there are samples enough for it", () => {
  assert.equal(metricOf("µs", oneTo(999)).p999, undefined);
  assert.equal(metricOf("µs", oneTo(1000)).p999, 999);
});

test("of buckets, as of the samples they stand for, and never above the largest sample", () => {
  const buckets = [
    [64, 1],
    [16, 900],
    [32, 99],
  ] as const;
  assert.deepEqual(metricOfBuckets("µs", buckets, 50), {
    unit: "µs",
    p50: 16,
    p90: 16,
    p99: 32,
    p999: 32,
    max: 50,
    n: 1000,
  });
  assert.equal(metricOfBuckets("µs", [], undefined).n, 0);
});

test("the median of runs is taken percentile by percentile", () => {
  const runs = [metricOf("µs", [1, 9]), metricOf("µs", [2, 8]), metricOf("µs", [3, 20])];
  assert.deepEqual(medianOf(runs), { unit: "µs", p50: 2, p90: 9, p99: 9, max: 9, n: 6 });
});

test("what was measured of the emulator gets a ratio beside it", () => {
  const results = new Results();
  for (const value of [10, 20]) results.add("guest_stall", "µs", value);
  for (const value of [40, 40, 40]) results.add("guest_stall_qemu_postcopy", "µs", value);
  results.add("downtime_qemu_precopy", "ms", 1);
  const { metrics } = results;
  assert.deepEqual(Object.keys(metrics), [
    "guest_stall",
    "guest_stall_qemu_postcopy",
    "guest_stall_ratio_postcopy",
    "downtime_qemu_precopy",
  ]);
  assert.deepEqual(metrics["guest_stall_ratio_postcopy"], {
    unit: "×",
    p50: 0.25,
    p90: 0.5,
    p99: 0.5,
    max: 0.5,
    n: 2,
  });
});

test("what is no number is no measurement", () => {
  assert.throws(() => new Results().add("pause", "ms", NaN), /not a measurement/);
});

test("tables have one line for each metric", () => {
  const metrics = { a_long_name: metricOf("ms", [1]), b: metricOf("µs", oneTo(1000)) };
  const lines = tableOf(metrics).split("\n");
  assert.equal(lines.length, 3);
  assert.match(lines[1] ?? "", /^a_long_name {2}ms .* – /);
  assert.deepEqual(markdownOf(metrics).split("\n").slice(1, 3), [
    "| --- | --- | --: | --: | --: | --: | --: | --: |",
    "| `a_long_name` | ms | 1.00 | 1.00 | 1.00 | – | 1.00 | 1 |",
  ]);
});
