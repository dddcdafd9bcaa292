import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { Turns } from "../../../src/agent/disks/turns.js";
import { deferred } from "../../../src/base/index.js";

describe("turns", () => {
  test("are taken by a few at a time, in order, also when work fails", async () => {
    const turns = new Turns(2);
    const begun: number[] = [];
    const ends = Array.from({ length: 5 }, () => deferred<number>());
    const all = ends.map(({ promise }, index) =>
      turns.take("a", () => {
        begun.push(index);
        return promise;
      }),
    );
    const settled = Promise.allSettled(all);
    await pause();
    assert.deepEqual(begun, [0, 1]);
    ends[1]?.reject(new Error("no"));
    await pause();
    assert.deepEqual(begun, [0, 1, 2]);
    assert.equal(await turns.take("b", () => Promise.resolve(7)), 7, "another key does not wait");
    for (const [index, end] of ends.entries()) end.resolve(index);
    assert.deepEqual(
      (await settled).map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled", "fulfilled", "fulfilled"],
    );
    assert.deepEqual(begun, [0, 1, 2, 3, 4]);
  });

  test("are free again when work throws at once", async () => {
    const turns = new Turns(1);
    const thrown = turns.take("a", () => {
      throw new Error("at once");
    });
    await assert.rejects(thrown, /at once/);
    assert.equal(await turns.take("a", () => Promise.resolve(1)), 1);
  });
});
