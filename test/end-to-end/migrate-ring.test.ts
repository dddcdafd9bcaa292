import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Hosts } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const PORT = 8130;

describe("a ring of migrations", () => {
  let hosts: Hosts;
  before(async () => {
    hosts = await Hosts.start(3, { port: 7172 });
  });
  after(() => hosts.stop());

  test("a guest with two processors that writes all the while goes from a to b to c to a, right at each stop", async () => {
    const stops = [1, 2, 0].map((index) => hosts.at(index));
    let here = hosts.at(0);
    await runSample(here, { name: "wanderer", memoryMiB: 384, cpus: 2, hostPort: PORT });
    const { boot_id: bootId } = await ask(here, PORT);
    await ask(here, PORT, "/stamp/start?mib=150&fill=page");
    let counter = (await ask(here, PORT)).counter;
    for (const next of stops) {
      const { guest } = await here.call("guest.show", { name: "wanderer" });
      const memory = join(here.memoryDirectory, guest.id);
      assert.ok(existsSync(memory));
      const { transfers } = await here.call("guest.migrate", {
        name: "wanderer",
        to: next.name,
        verify: true,
      });
      await whenTransfersEnd(here, 120_000);
      const { transfer: view } = await here.call("transfer.show", {
        transfer: transfers[0]?.transfer ?? 0,
      });
      assert.equal(view.phase, "complete", view.message);
      assert.deepEqual(view.verify, { checked: 98_304, mismatches: 0 });
      assert.equal(view.pages.push, 0, "a parent that stands still pushes nothing");
      assert.equal(existsSync(memory), false, "the memory left behind is deleted");
      assert.equal((await here.guests()).has("wanderer"), false);
      const answer = await ask(next, PORT);
      assert.equal(answer.boot_id, bootId, "it is the same machine");
      assert.equal(answer.counter, counter + 1, "it counts on");
      counter = answer.counter;
      const { checked, bad } = await ask<{ checked: number; bad: number }>(
        next,
        PORT,
        "/stamp/verify?order=random",
      );
      assert.deepEqual({ checked, bad }, { checked: 150 * 256, bad: 0 });
      here = next;
    }
    assert.deepEqual(hosts.problems, []);
  });
});
