import assert from "node:assert/strict";
import { test } from "node:test";
import { Bitmap, PAGE_BYTES } from "../../../src/base/index.js";
import { SimulatedCopies } from "../../support/simulation/kept.js";
import { CopyStore } from "../../../src/transfer/copy-store.js";
import { LatencyHistogram } from "../../../src/transfer/latency.js";
import { mergeRanges, rangesOf } from "../../../src/transfer/ranges.js";
import { AfterFaultOrder, type SweepSource } from "../../../src/transfer/sweep-order.js";
import { AdaptiveWindow } from "../../../src/transfer/window.js";
import { splitZeroPages } from "../../../src/transfer/zero-pages.js";

function source(options: {
  pages: number;
  holes?: number[];
  copies?: number[];
  sent?: number[];
  had?: number[];
}): SweepSource {
  const owed = new Bitmap(options.pages);
  owed.fill();
  for (const page of options.had ?? []) owed.clear(page);
  const sent = new Bitmap(options.pages);
  for (const page of options.sent ?? []) sent.set(page);
  const holes = new Set(options.holes);
  return {
    pageCount: options.pages,
    owed,
    sent,
    hasCopy: (page) => options.copies?.includes(page) === true,
    hasCopies: options.copies !== undefined,
    nextData(page) {
      let first = page;
      while (first < options.pages && holes.has(first)) first += 1;
      if (first === options.pages) return undefined;
      let past = first;
      while (past < options.pages && !holes.has(past)) past += 1;
      return { first, count: past - first };
    },
  };
}

/** Every step of a sweep that nothing disturbs. */
function sweepAll(order: AfterFaultOrder, from: SweepSource): string[] {
  const steps: string[] = [];
  for (let step = order.next(from, 16); step !== undefined; step = order.next(from, 16)) {
    from.sent.setRun(step.range.first, step.range.count);
    steps.push(`${step.kind} ${step.range.first}+${step.range.count}`);
  }
  return steps;
}

test("the sweep goes in runs of 16 pages, and tells of a whole hole at once", () => {
  const holes = Array.from({ length: 60 }, (_, index) => 20 + index);
  assert.deepEqual(sweepAll(new AfterFaultOrder(), source({ pages: 100, holes })), [
    "data 0+16",
    "data 16+4",
    "hole 20+60",
    "data 80+16",
    "data 96+4",
  ]);
});

test("the sweep starts after the page faulted last and comes round to the rest", () => {
  const order = new AfterFaultOrder();
  order.onFault(40);
  assert.deepEqual(sweepAll(order, source({ pages: 64 })), [
    "data 41+16",
    "data 57+7",
    "data 0+16",
    "data 16+16",
    "data 32+9",
  ]);
});

test("the sweep passes over what was sent, what the child has, and copies", () => {
  const steps = sweepAll(new AfterFaultOrder(), source({ pages: 10, sent: [0, 1], had: [4], copies: [7] }));
  assert.deepEqual(steps, ["data 2+2", "data 5+2", "data 8+2"]);
});

/** A window whose credits come so late, one each 10 ms, after one that came at once. */
function windowAfter(lateUs: number, { urgent }: { urgent: boolean }): AdaptiveWindow {
  const window = new AdaptiveWindow();
  for (let turn = 0; turn < 200; turn += 1) {
    const nowUs = turn * 10_000;
    if (urgent) window.urgent(nowUs);
    window.sent(1000, nowUs);
    assert.ok(window.credited(1000, nowUs + (turn === 0 ? 100 : lateUs)));
  }
  return window;
}

test("a window shrinks when credit comes late and grows when it comes soon", () => {
  for (const urgent of [true, false]) {
    const soon = windowAfter(200, { urgent }).limitBytes;
    const late = windowAfter(50_000, { urgent }).limitBytes;
    assert.ok(late < soon / 2, `${late}, ${soon}`);
  }
});

test("a window is longer while nobody waits for pages, and short again as soon as somebody does", () => {
  const calm = windowAfter(5000, { urgent: false });
  const busy = windowAfter(5000, { urgent: true });
  assert.ok(calm.limitBytes > 2 * busy.limitBytes, `${calm.limitBytes}, ${busy.limitBytes}`);
  const long = calm.limitBytes;
  calm.urgent(3e6);
  assert.ok(calm.limitBytes < long / 2);
  const short = calm.limitBytes;
  calm.sent(1000, 4e6);
  assert.ok(calm.credited(1000, 4e6 + 5000));
  assert.ok(calm.limitBytes > short, "and long again when nobody has for a while");
});

test("a long link is not mistaken for a queue", () => {
  const window = new AdaptiveWindow();
  const before = window.limitBytes;
  for (let turn = 1; turn < 100; turn += 1) {
    window.sent(1000, turn * 1e6);
    assert.ok(window.credited(1000, turn * 1e6 + 80_000 + turn));
  }
  assert.ok(window.limitBytes > before);
});

test("a window refuses credit for more than is in flight, and takes credit in parts", () => {
  const window = new AdaptiveWindow();
  window.sent(100, 0);
  window.sent(100, 0);
  assert.ok(window.credited(150, 1));
  assert.equal(window.inFlightBytes, 50);
  assert.equal(window.credited(51, 2), false);
  window.reset();
  assert.equal(window.inFlightBytes, 0);
});

test("a window that is late for long never closes for good", () => {
  const window = new AdaptiveWindow();
  for (let turn = 1; turn < 200; turn += 1) {
    window.sent(1000, turn * 1e6);
    window.credited(1000, turn * 1e6 + turn * 10_000);
  }
  assert.ok(window.open && window.limitBytes > 2 * 16 * PAGE_BYTES);
});

test("copies are held up to the budget, and slots are used again", () => {
  const file = new SimulatedCopies();
  const copies = new CopyStore({ file, budgetBytes: 2 * PAGE_BYTES });
  const pageOf = (content: number) => new Uint8Array(PAGE_BYTES).fill(content);
  assert.ok(copies.take(5, pageOf(5)) && copies.take(9, pageOf(9)));
  assert.ok(copies.full);
  assert.equal(copies.take(1, pageOf(1)), false);
  const page = new Uint8Array(PAGE_BYTES);
  copies.read(5, page);
  assert.equal(page[0], 5);
  copies.drop({ first: 5, count: 1 });
  assert.throws(() => copies.drop({ first: 5, count: 1 }), /no copy/);
  assert.ok(copies.take(6, pageOf(6)));
  copies.read(9, page);
  assert.equal(page[4095], 9);
  assert.deepEqual([...copies.keys()], [9, 6]);
  assert.equal(copies.peakPages, 2);
  const next = new CopyStore({ file, budgetBytes: 3 * PAGE_BYTES });
  assert.deepEqual([...next.keys()], [6, 9], "a new agent finds what the old one kept");
  file.room = 2;
  assert.equal(next.take(1, pageOf(1)), false, "a host without room is as a budget that is spent");
});

test("percentiles are exact to a sixteenth", () => {
  const histogram = new LatencyHistogram();
  for (let us = 1; us <= 1000; us += 1) histogram.add(us);
  assert.equal(histogram.count, 1000);
  assert.equal(histogram.maxUs, 1000);
  for (const [share, exact] of [
    [0.5, 500],
    [0.99, 990],
    [1, 1000],
  ] as const) {
    const told = histogram.percentileUs(share);
    assert.ok(told >= exact && told <= exact * 1.07, `${told} stands for ${exact}`);
  }
  assert.equal(new LatencyHistogram().percentileUs(0.5), 0);
});

test("ranges are sorted and joined", () => {
  assert.deepEqual(rangesOf([3, 1, 2, 7, 2]), [
    { first: 1, count: 3 },
    { first: 7, count: 1 },
  ]);
  const ranges = [
    { first: 8, count: 2 },
    { first: 0, count: 8 },
    { first: 11, count: 1 },
  ];
  assert.deepEqual(mergeRanges(ranges), [
    { first: 0, count: 10 },
    { first: 11, count: 1 },
  ]);
});

test("zero pages are told from others to the last byte", () => {
  const bytes = new Uint8Array(4 * PAGE_BYTES);
  bytes[2 * PAGE_BYTES - 1] = 1;
  assert.deepEqual(splitZeroPages(bytes), [
    { first: 0, count: 1 },
    { first: 1, count: 1 },
    { first: 2, count: 2 },
  ]);
});

test("credits that come in bunches do not make a link seem faster than it is", () => {
  const window = new AdaptiveWindow();
  // 12.5 bytes a microsecond, credited two frames at a time, a few microseconds after each other.
  const frameUs = 65_536 / 12.5;
  for (let nowUs = 0; nowUs < 1_000_000; nowUs += 2 * frameUs) {
    window.sent(65_536, nowUs);
    window.sent(65_536, nowUs);
    window.credited(65_536, nowUs + 2 * frameUs - 5);
    window.credited(65_536, nowUs + 2 * frameUs);
    const { bytesPerSecond } = window;
    assert.ok(bytesPerSecond < 20e6, `${bytesPerSecond} bytes a second on a link of 12.5 million`);
  }
  assert.ok(window.bytesPerSecond > 10e6, `${window.bytesPerSecond} bytes a second are too few`);
  window.reset();
  assert.equal(window.bytesPerSecond, 0);
});
