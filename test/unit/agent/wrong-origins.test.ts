import assert from "node:assert/strict";
import { test } from "node:test";
import { WrongOrigins } from "../../../src/agent/blocks/wrong-origins.js";
import { realClock } from "../../../src/base/index.js";

test("an origin that gave something wrong is asked ever more seldom, and others as before", () => {
  let nowUs = 0;
  const wrong = new WrongOrigins({ ...realClock, nowUs: () => nowUs });
  const pausesS: number[] = [];
  for (let times = 1; times <= 30; times += 1) {
    const said = wrong.note("a", "bytes 0 to 5 are wrong");
    const [, pauseS = ""] = /asked again after (\d+) s/.exec(said) ?? [];
    pausesS.push(Number(pauseS));
    assert.match(said, /what a gave was refused.*bytes 0 to 5 are wrong.*ramet image verify/);
    assert.equal(said.includes(`${times} times by now`), times > 1);
    assert.deepEqual([wrong.isBanned("a"), wrong.isBanned("b")], [true, false]);
    nowUs += Number(pauseS) * 1_000_000 - 1;
    assert.ok(wrong.isBanned("a"));
    nowUs += 1;
    assert.ok(!wrong.isBanned("a"));
  }
  assert.deepEqual(pausesS.slice(0, 4), [10, 20, 40, 80]);
  assert.deepEqual(new Set(pausesS.slice(8)), new Set([900]));
});
