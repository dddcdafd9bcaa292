import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { GuestError } from "../../../src/guest/index.js";
import { forkInTwoAttempts } from "../../../src/agent/transfers/fork-attempts.js";

const ranOn = new GuestError("ran-on", "by a test");

/** Plays a fork whose tries come out so; returns what came of it, and how many were made and forgotten. */
async function play(...outcomes: (string | Error)[]) {
  const did = { made: 0, forgotten: 0, came: "" };
  const attempt = () => {
    const outcome = outcomes[did.made] ?? assert.fail("one try too many");
    did.made += 1;
    return {
      run: async () => {
        if (outcome instanceof Error) throw outcome;
        return outcome;
      },
      forget: () => void (did.forgotten += 1),
    };
  };
  did.came = await forkInTwoAttempts(attempt, silentLog).catch((error: Error) => error.message);
  return did;
}

test("a guest that ran on before its instant is forked once more, and nobody hears of the first try", async () => {
  assert.deepEqual(await play(ranOn, "children"), { made: 2, forgotten: 1, came: "children" });
  assert.deepEqual(await play("children"), { made: 1, forgotten: 0, came: "children" });
  assert.deepEqual(await play(ranOn, ranOn), { made: 2, forgotten: 1, came: "by a test" });
});

test("a fork that failed otherwise is not made again", async () => {
  const other = new GuestError("command-failed", "no");
  assert.deepEqual(await play(other), { made: 1, forgotten: 0, came: "no" });
  assert.deepEqual(await play(ranOn, other), { made: 2, forgotten: 1, came: "no" });
});
