import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBar } from "../../../src/cli/format/bar.js";
import { formatLive } from "../../../src/cli/format/transfer.js";
import { formatTable } from "../../../src/cli/format/table.js";
import { formatBytes, formatMs, formatShare, formatUs, plural } from "../../../src/cli/format/units.js";
import { memoryMiB, sizeBytes } from "../../../src/cli/options.js";
import { RateMeter } from "../../../src/cli/transfer-follower.js";
import { TRANSFER } from "../control/support.js";

test("amounts have units people read", () => {
  assert.deepEqual([0, 1023, 1024, 1536, 256 * 1024 ** 2, 1.5 * 1024 ** 3, 2 ** 60].map(formatBytes), [
    "0 B",
    "1023 B",
    "1 KiB",
    "1.5 KiB",
    "256 MiB",
    "1.5 GiB",
    "1048576 TiB",
  ]);
  assert.deepEqual(
    [0, 7.25, 850, 1234, 65_400, 2_500_000, 185e6, 2 * 3600e6 + 60e6, 3 * 86400e6].map(formatUs),
    ["0 µs", "7.25 µs", "850 µs", "1.23 ms", "65.4 ms", "2.5 s", "3 min 5 s", "2 h 1 min", "3 d 0 h"],
  );
  assert.equal(formatMs(1500), "1.5 s");
  assert.deepEqual(
    [formatShare(0, 10), formatShare(9999, 10_000), formatShare(10, 10), formatShare(0, 0)],
    ["0 %", "99 %", "100 %", "100 %"],
  );
  assert.deepEqual([plural(1, "page"), plural(2, "copy", "copies")], ["1 page", "2 copies"]);
});

test("sizes are read as they are written", () => {
  assert.deepEqual(
    ["512", "512M", "2G", "2GiB", "1024K", "1.5g"].map(memoryMiB),
    [512, 512, 2048, 2048, 1, 1536],
  );
  assert.deepEqual(["4096", "1K", "50M"].map(sizeBytes), [4096, 1024, 50 * 1024 ** 2]);
  for (const bad of ["", "0", "-1", "1X", "1e3", "0x10", "1.0001G", "1 G"])
    assert.throws(() => memoryMiB(bad), bad);
});

test("bars fill in eighths and never overflow", () => {
  assert.equal(formatBar(0, 4), "····");
  assert.equal(formatBar(0.5, 4), "██··");
  assert.equal(formatBar(1 / 32, 4), "▏···");
  assert.equal(formatBar(7, 4), "████");
  assert.equal(formatBar(-1, 4), "····");
});

test("tables align numbers at the right", () => {
  assert.deepEqual(
    formatTable(
      [{ title: "A" }, { title: "N", right: true }, { title: "C" }],
      [
        ["x", "10", ""],
        ["long", "2", "y"],
      ],
    ),
    ["A      N  C", "x     10", "long   2  y"],
  );
});

test("a live view never is wider than the terminal", () => {
  for (const columns of [20, 60, 80, 200]) {
    const view = {
      ...TRANSFER,
      host: "h".repeat(200),
      message: "m".repeat(300),
      copies: { pages: 5, budgetPages: 100 },
    };
    for (const line of formatLive(view, { urgent: 1e6, bulk: 1e9 }, columns))
      assert.ok(line.length <= columns);
  }
});

test("rates are taken over about a second", () => {
  const meter = new RateMeter();
  assert.deepEqual(meter.rates, { urgent: 0, bulk: 0 });
  for (let elapsedMs = 0; elapsedMs <= 5000; elapsedMs += 200) {
    const bulk = elapsedMs <= 4000 ? 0 : (elapsedMs - 4000) * 1000;
    meter.add({ ...TRANSFER, elapsedMs, bytes: { control: 0, urgent: elapsedMs, bulk } });
  }
  assert.deepEqual(meter.rates, { urgent: 1000, bulk: 1_000_000 });
});
