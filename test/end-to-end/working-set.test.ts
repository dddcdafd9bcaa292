import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import type { ParamsInput } from "../../src/control/index.js";
import { eventually, type Host } from "../support/hosts.js";
import { ask, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest, transferOf, TwoHosts } from "../support/two-hosts.js";

describe("the order in which children touch pages", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests({ web: true });
  before(() => ({ a, b } = two));

  const fork = (params: Partial<ParamsInput<"guest.fork">> = {}): Promise<number> =>
    two.forkWeb({ sweep: "held", ...params });
  const endChild = async (): Promise<void> => {
    await b.call("guest.kill", { name: "child" });
    await whenTransfersEnd(a);
    await b.call("guest.remove", { name: "child" });
  };

  test("is learnt from one and sent ahead to the next, which waits for hardly any page until it answers", async () => {
    const first = await fork();
    await ask(b, 8090);
    const learnt = await transferOf(b, first);
    assert.deepEqual((await transferOf(a, first)).workingSet, { pages: 0, sent: 0 });
    await endChild();

    const second = await fork();
    await ask(b, 8090);
    const later = await transferOf(b, second);
    const { workingSet } = await transferOf(a, second);
    assert.ok(workingSet !== undefined && workingSet.sent > 0 && workingSet.sent <= workingSet.pages);
    const [before = 0, now = 0] = [learnt.faults?.count, later.faults?.count];
    assert.ok(now < before / 2, `${before} faults before, ${now} with what was learnt`);
    await endChild();
  });

  test("is left alone when that is asked", async () => {
    const without = await fork({ workingSet: false });
    await ask(b, 8090);
    const view = await transferOf(a, without);
    assert.equal(view.workingSet, undefined);
    assert.equal(view.pages.sweep, 0, "a held sweep sends what is needed and no more");
    await endChild();
  });

  test("outlives the agent, and a child is given every page as it was all the same", async () => {
    await a.end();
    await a.start();
    await eventually("the parent is there", async () => (await a.guests()).get("web")?.state === "running");
    await ask(a, 8080, "/stamp/start?mib=32");
    const transfer = await fork({ sweep: "on", verify: true });
    await whenTransfersEnd(a);
    const view = await transferOf(a, transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: 65536, mismatches: 0 });
    assert.ok(view.workingSet !== undefined && view.workingSet.pages > 0);
    await removeGuest(b, "child");
    const id = (await a.guests()).get("web")?.id ?? "";
    const path = join(a.memoryDirectory, id, "working-set");
    assert.ok(existsSync(path));
    await removeGuest(a, "web");
    assert.ok(!existsSync(path), "it goes with its guest");
  });
});
