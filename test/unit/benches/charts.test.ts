import assert from "node:assert/strict";
import { test } from "node:test";
import { chartsOf } from "../../../scripts/benches/charts.js";
import { metricOf } from "../../../scripts/benches/statistics.js";
import { svgOf, type Chart } from "../../../scripts/benches/svg.js";

const CHART: Chart = {
  name: "waits",
  title: "Waits & <pauses>",
  across: "memory",
  unit: "ms",
  logarithmic: true,
  categories: ["1 GiB", "4 GiB"],
  series: [
    { label: "ours", values: [1, 100] },
    { label: "theirs", values: [undefined, 10] },
  ],
};

function linesOf(svg: string): string[] {
  return [...svg.matchAll(/ points="([^"]*)"/g)].map((match) => match[1] ?? "");
}

function ticksOf(svg: string): string[] {
  return [...svg.matchAll(/text-anchor="end">([^<]*)</g)].map((match) => match[1] ?? "");
}

test("a chart is well-formed SVG with a line for each series and a point for each value", () => {
  const svg = svgOf(CHART);
  assert.match(svg, /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" /);
  const open = [...svg.matchAll(/<([a-z]+)(?:\s[^<>]*[^/])?>/g)].map((match) => match[1]);
  const closed = [...svg.matchAll(/<\/([a-z]+)>/g)].map((match) => match[1]);
  assert.deepEqual(open.toSorted(), closed.toSorted());
  assert.match(svg, />Waits &amp; &lt;pauses&gt;</);
  assert.deepEqual(
    linesOf(svg).map((points) => points.split(" ").length),
    [2, 1],
  );
});

test("a logarithmic axis has the powers of ten around the values, each as far from the next", () => {
  const svg = svgOf(CHART);
  assert.deepEqual(ticksOf(svg), ["1", "10", "100"]);
  const heights = [
    ...linesOf(svg)
      .join(" ")
      .matchAll(/,(\d+)/g),
  ].map((match) => Number(match[1]));
  const [one = 0, hundred = 0, ten = 0] = heights;
  assert.equal(one - ten, ten - hundred);
});

test("a linear axis begins at zero and ends above the largest value", () => {
  const svg = svgOf({ ...CHART, logarithmic: false, series: [{ label: "ours", values: [130, 870] }] });
  assert.deepEqual(ticksOf(svg), ["0", "200", "400", "600", "800", "1000"]);
});

test("what was not measured is not drawn, and zeros do not break an axis", () => {
  assert.deepEqual(chartsOf({ nothing_of_these: metricOf("ms", [1]) }), []);
  assert.doesNotMatch(svgOf({ ...CHART, series: [{ label: "ours", values: [0, 0] }] }), /NaN|Infinity/);
});

test("charts find their metrics by name, ours and the emulator's", () => {
  const metrics = {
    migrate_total_1GiB: metricOf("ms", [1]),
    migrate_total_1GiB_qemu_postcopy: metricOf("ms", [2]),
    guest_stall: metricOf("µs", [3]),
  };
  const charts = chartsOf(metrics);
  assert.deepEqual(
    charts.map(({ name }) => name),
    ["migration-by-memory", "guest-stall"],
  );
  assert.deepEqual(charts[0]?.series, [
    { label: "Ramet", values: [1] },
    { label: "QEMU postcopy", values: [2] },
  ]);
  assert.deepEqual(charts[0]?.categories, ["1 GiB"], "what nobody measured has no place");
});

test("a chart of one suite is not drawn of another one's metrics of the same names", () => {
  const metrics = { first_instruction_1GiB: metricOf("ms", [30]) };
  assert.deepEqual(chartsOf(metrics), []);
  const charts = chartsOf({ ...metrics, first_answer: metricOf("ms", [200]) });
  assert.deepEqual(
    charts.map(({ name }) => name),
    ["start-by-memory"],
  );
});
