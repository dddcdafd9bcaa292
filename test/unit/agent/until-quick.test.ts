import assert from "node:assert/strict";
import { test } from "node:test";
import { untilQuick } from "../../../src/agent/exchange/until-quick.js";

/** How often a disk is written that takes so long each time. */
async function timesFor(lastsMs: (times: number) => number): Promise<number> {
  let nowUs = 0;
  let times = 0;
  const sync = async (): Promise<void> => {
    nowUs += lastsMs(times) * 1000;
    times += 1;
  };
  await untilQuick(sync, () => nowUs);
  return times;
}

test("a guest is stopped when its host's disk is not busy with what others write, or always is", async () => {
  assert.equal(await timesFor(() => 2), 1);
  assert.equal(await timesFor((times) => (times < 3 ? 300 : 2)), 4);
  assert.equal(await timesFor(() => 300), 10);
});
