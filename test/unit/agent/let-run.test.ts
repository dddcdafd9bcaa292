import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import type { Emulator } from "../../../src/guest/index.js";
import { letRun } from "../../../src/agent/transfers/hosted-child.js";

function child(requireGoing: () => void): { did: string[]; run: () => Promise<void> } {
  const did: string[] = [];
  const emulator = {
    resume: () => {
      did.push("resumed");
      return Promise.resolve();
    },
  } as unknown as Emulator;
  const onRuns = (): void => void did.push("runs");
  const of = { kind: "migrate", log: silentLog, child: { requireGoing }, onRuns } as const;
  return { did, run: () => letRun(emulator, { mode: "none" }, of) };
}

test("a child is let run, and then it is told that it runs", async () => {
  const { did, run } = child(() => {});
  await run();
  assert.deepEqual(did, ["resumed", "runs"]);
});

test("a child whose end has begun while it was connected is not let run", async () => {
  const { did, run } = child(() => {
    throw new Error("it was rolled back");
  });
  await assert.rejects(run(), /rolled back/);
  assert.deepEqual(did, []);
});
