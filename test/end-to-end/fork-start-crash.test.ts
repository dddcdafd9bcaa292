import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, before, describe, test } from "node:test";
import { eventually, type Host } from "../support/hosts.js";
import { nicenessOfThreads } from "../support/niceness.js";
import { ask, whenTransfersEnd } from "../support/sample-guest.js";
import { TwoHosts } from "../support/two-hosts.js";

const PORT = 8080;
const CHILD_PORT = 8090;
const SPIN_MS = 20_000;
/** How long after the step was written the agent is killed: its emulator may be told to run, be loading or run by then. */
const KILLED_AFTER_MS = [0, 0, 1, 2, 4, 8] as const;

/** The steps of the children's records on a host, as they are right now. */
function stepsOn(host: Host): string[] {
  const steps: string[] = [];
  try {
    for (const path of readdirSync(host.memoryDirectory, { recursive: true, encoding: "utf8" })) {
      if (!/transfer-\d+-child\.json$/.test(path)) continue;
      steps.push(stepOf(readFileSync(join(host.memoryDirectory, path), "utf8")));
    }
  } catch {
    // It is being replaced or removed just now.
  }
  return steps;
}

function stepOf(text: string): string {
  return (JSON.parse(text) as { step: string }).step;
}

/** Kills processes as soon as a child of the host is about to be loaded and to run, or was so before it could be seen. */
async function killAtStart(host: Host, pids: readonly number[], afterMs: number): Promise<string> {
  const until = performance.now() + SPIN_MS;
  for (;;) {
    const found = stepsOn(host).find((step) => step === "starting" || step === "running");
    if (found !== undefined) {
      const from = performance.now();
      while (performance.now() < from + afterMs);
      for (const pid of pids) process.kill(pid, "SIGKILL");
      return found;
    }
    assert.ok(performance.now() < until, "a child is started");
    await turn();
  }
}

describe("a fork whose agents end while its child is loaded and let run", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests({ web: true });
  before(() => ({ a, b } = two));
  afterEach(() => b.removeGuests());

  // RAMET_KILLS=all: each of them.
  const killings = KILLED_AFTER_MS.flatMap((ms, index) => [
    { victims: "the child's", ms },
    ...(index % 2 === 0 ? [{ victims: "both", ms }] : []),
  ]).filter((_, index) => process.env["RAMET_KILLS"] === "all" || index % 2 === 0);
  for (const { victims, ms } of killings) {
    test(`${victims}, ${ms} ms after that was noted`, async (context) => {
      const first = await ask(a, PORT);
      const { pid } = (await a.guests()).get("web") ?? {};
      const killed = victims === "both" ? [b, a] : [b];
      const killing = killAtStart(
        b,
        killed.map((host) => host.pid),
        ms,
      );
      const forking = a
        .call("guest.fork", {
          name: "web",
          to: ["b"],
          names: ["web-1"],
          forwards: [`${CHILD_PORT}:80`],
          verify: true,
        })
        .catch(() => undefined);
      context.diagnostic(`killed when its record said ${await killing}`);
      await Promise.all(killed.map((host) => host.end("SIGKILL")));
      await Promise.all(killed.map((host) => host.start()));
      await forking;

      // The parent is as it was, whatever became of its child.
      const again = await ask(a, PORT);
      assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
      const parent = (await a.guests()).get("web");
      assert.deepEqual([parent?.state, parent?.pid], ["running", pid]);
      await whenTransfersEnd(a);
      await whenTransfersEnd(b);

      // The child runs and is whole, or there is nothing of it.
      await eventually("the child is a guest or gone", async () => {
        const state = (await b.guests()).get("web-1")?.state;
        return state === undefined || state === "running";
      });
      const child = (await b.guests()).get("web-1");
      context.diagnostic(child === undefined ? "the child is gone" : "the child runs");
      if (child !== undefined) {
        assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 1);
        const ahead = nicenessOfThreads(child.pid ?? 0).filter((nice) => nice < 0);
        assert.deepEqual(ahead, [], "it is not left ahead of other work");
      } else await eventually("nothing of it is left", () => stepsOn(b).length === 0);
      for (const host of [a, b]) {
        for (const { verify, phase } of (await host.call("transfer.list", {})).transfers)
          assert.equal(verify?.mismatches ?? 0, 0, phase);
      }
    });
  }
});
