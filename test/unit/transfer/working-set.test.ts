import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MAX_WORKING_SET_PAGES, SeededRandom } from "../../../src/base/index.js";
import { WorkingSet, type PagesAhead } from "../../../src/transfer/working-set.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const PAGES = 100_000;

function clockAt() {
  const clock = new Scheduler(new SeededRandom(1));
  const time = { us: 0 };
  clock.nowUs = () => time.us;
  return { clock, time };
}

function emptySet(encoded?: Uint8Array) {
  const { clock, time } = clockAt();
  let changes = 0;
  const set = new WorkingSet({
    pageCount: PAGES,
    clock,
    onChange: () => (changes += 1),
    ...(encoded === undefined ? {} : { encoded }),
  });
  return { set, time, changes: () => changes };
}

/** A child that waits for pages one after the other, 10 µs each, some of them before it is loaded. */
function faults(
  child: PagesAhead,
  time: { us: number },
  pages: { early?: number[]; running?: number[] },
): void {
  const wait = (page: number): void => {
    time.us += 10;
    child.onFault(page);
  };
  pages.early?.forEach(wait);
  child.childRuns();
  pages.running?.forEach(wait);
}

function takeAll(child: PagesAhead): number[] {
  const taken: number[] = [];
  for (let some = child.take(16, () => true); some.length > 0; some = child.take(16, () => true))
    taken.push(...some);
  return taken;
}

describe("a working set", () => {
  test("learns from a child of an earlier agent, too, whose pages come after those that were waited for before", () => {
    const { set, time } = emptySet();
    faults(set.forChild({ learns: true }), time, { early: [900], running: [70, 8] });
    const resumed = set.forChild({ learns: true, begunAgoUs: 5000 });
    resumed.childRuns();
    assert.deepEqual(takeAll(resumed), [900, 70, 8], "nothing is withheld from it");
    faults(resumed, time, { running: [8, 33] });
    resumed.end({ complete: true });
    const next = set.forChild({ learns: false });
    next.childRuns();
    assert.deepEqual(takeAll(next), [900, 70, 8, 33]);
  });

  test("sends what children waited for in their order: to one that loads what they touched while they loaded, the rest when it runs", () => {
    const { set, time } = emptySet();
    const first = set.forChild({ learns: true });
    assert.deepEqual(takeAll(first), []);
    faults(first, time, { early: [900, 3], running: [70, 8, 900, 40] });
    const second = set.forChild({ learns: false });
    assert.equal(second.pages, 5);
    assert.deepEqual(takeAll(second), [900, 3]);
    second.childRuns();
    assert.deepEqual(takeAll(second), [70, 8, 40]);
    second.restart();
    assert.deepEqual(takeAll(second), [900, 3, 70, 8, 40], "what was lost with the lanes is sent again");
  });

  test("leaves out what the child has, and goes on with as many others", () => {
    const { set, time } = emptySet();
    faults(set.forChild({ learns: true }), time, { running: [5, 6, 7, 8] });
    const child = set.forChild({ learns: false });
    child.childRuns();
    assert.deepEqual(
      child.take(2, (page) => page !== 6),
      [5, 7],
    );
    assert.deepEqual(
      child.take(2, () => true),
      [8],
    );
  });

  test("puts what a later child waited for among the others by the time since it was begun", () => {
    const { set, time } = emptySet();
    faults(set.forChild({ learns: true }), time, { running: [5, 6, 7] });
    time.us = 1e6;
    const second = set.forChild({ learns: true });
    second.take(1, () => false);
    time.us += 5;
    faults(second, time, { running: [9] });
    const third = set.forChild({ learns: false });
    third.childRuns();
    assert.deepEqual(takeAll(third), [5, 6, 9, 7]);
  });

  test("is the same for the next agent, and what it cannot read it does not send", () => {
    const { set, time, changes } = emptySet();
    faults(set.forChild({ learns: true }), time, { early: [12], running: [70, 8] });
    assert.equal(changes(), 3, "its owner is told that there is something to keep");
    const encoded = set.encode();
    assert.equal(encoded.length, 8 + 3 * 8);
    const next = emptySet(encoded);
    const child = next.set.forChild({ learns: false });
    child.childRuns();
    assert.deepEqual(takeAll(child), [12, 70, 8]);
    for (const damaged of [new Uint8Array(3), encoded.subarray(0, 7), new Uint8Array(64).fill(255)])
      assert.equal(emptySet(damaged).set.pages, 0);
    assert.equal(emptySet(encoded.subarray(0, encoded.length - 1)).set.pages, 2);
  });

  test("holds the pages touched first when children touch more than it may hold", () => {
    const { set, time } = emptySet();
    const all = Array.from({ length: MAX_WORKING_SET_PAGES + 500 }, (_, index) => PAGES - 1 - index);
    faults(set.forChild({ learns: true }), time, { running: all });
    assert.equal(set.encode().length, 8 + MAX_WORKING_SET_PAGES * 8);
    const child = set.forChild({ learns: false });
    child.childRuns();
    assert.deepEqual(takeAll(child), all.slice(0, MAX_WORKING_SET_PAGES));
  });

  test("forgets in time what complete children did without, and keeps what they waited for", () => {
    const { set, time } = emptySet();
    const needed = [3, 40, 77, 1001, 5006];
    const stale = Array.from({ length: 200 }, (_, index) => 20_000 + index * 3);
    faults(set.forChild({ learns: true }), time, { running: [...needed, ...stale] });
    for (let index = 0; index < 64; index += 1) {
      const child = set.forChild({ learns: true });
      child.childRuns();
      const given = new Set(takeAll(child));
      if (index === 0) assert.ok(given.size > 190, "little is withheld from any child");
      faults(child, time, { running: needed.filter((page) => !given.has(page)) });
      child.end({ complete: index !== 0 });
      if (index === 0)
        assert.equal(set.forChild({ learns: false }).pages, 205, "one that was ended early shows nothing");
    }
    const last = set.forChild({ learns: false });
    last.childRuns();
    assert.deepEqual(new Set(takeAll(last)), new Set(needed));
  });
});
