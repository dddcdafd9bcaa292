import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog } from "../../src/base/index.js";
import { RpcClient } from "../../src/control/index.js";
import { dial } from "../../src/lane/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PORT = 8187;
const CHILD_PORT = 8188;
const MIB_STAMPED = 24;

interface Verdict {
  checked: number;
  bad: number;
}

/** A client that connects again and again, and must never be turned away. */
class Visitor {
  visits = 0;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(host: Host) {
    this.#done = this.#visit(host);
    this.#done.catch(() => {});
  }

  /** Rejects when it was turned away. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #visit(host: Host): Promise<void> {
    while (!this.#stopped) {
      const hello = { purpose: "control", role: "client" } as const;
      const url = `unix:${host.socket}`;
      try {
        const connection = await dial({ url, hello, clock: realClock, deadlineMs: 20_000 });
        const client = new RpcClient(connection, { clock: realClock, log: silentLog });
        await client.call("agent.info", {}, { deadlineMs: 20_000 });
        client.close();
        this.visits += 1;
      } catch (error) {
        // Who was connected to the agent that left has to come again; nobody may find nothing there.
        assert.doesNotMatch(String(error), /ENOENT|ECONNREFUSED/);
      }
    }
  }
}

/** Also true for a process that nobody has waited for, as where the first process does not. */
function hasEnded(pid: number): boolean {
  return !existsSync(`/proc/${pid}`) || / Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

describe("an agent that takes over", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(2, { port: 7187 });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  test("goes on with guests and with a fork under way, on either side, and nobody who comes is turned away", async () => {
    await runSample(a, { name: "web", memoryMiB: 128, hostPort: PORT });
    await ask(a, PORT, `/stamp/start?mib=${MIB_STAMPED}&fill=page&rate=2`);
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      verify: true,
      forwards: [`${CHILD_PORT}:80`],
      sweep: "held",
    });
    const transfer = transfers[0]?.transfer ?? 0;
    const { counter } = await ask(a, PORT);
    const pids = [(await a.guests()).get("web")?.pid, (await b.guests()).get("web-1")?.pid];
    const visitor = new Visitor(a);
    for (const host of [a, b, a]) {
      const before = await host.call("agent.info", {});
      assert.equal(await host.takeOver(), 0, "the one before ends in order");
      const now = await host.call("agent.info", {});
      assert.notEqual(now.pid, before.pid);
      assert.equal(now.takeover?.pid, before.pid);
      assert.ok((now.takeover?.waitedMs ?? -1) > 0, "it says how long anybody can have waited");
      assert.equal(statSync(host.socket).mode & 0o777, 0o600);
    }
    await visitor.stop();
    assert.ok(visitor.visits > 0);
    assert.deepEqual([(await a.guests()).get("web")?.pid, (await b.guests()).get("web-1")?.pid], pids);
    assert.equal((await ask(a, PORT)).counter, counter + 1);
    const { checked, bad } = await ask<Verdict>(b, CHILD_PORT, "/stamp/verify?order=random");
    assert.deepEqual({ checked, bad }, { checked: MIB_STAMPED * 256, bad: 0 });
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await whenTransfersEnd(a, 60_000);
    const { transfer: view } = await a.call("transfer.show", { transfer });
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: 32_768, mismatches: 0 });
  });

  test("is started by SIGHUP", async () => {
    const before = await a.call("agent.info", {});
    process.kill(before.pid, "SIGHUP");
    const asAnybody = async () => {
      const hello = { purpose: "control", role: "client" } as const;
      const connection = await dial({ url: `unix:${a.socket}`, hello, clock: realClock, deadlineMs: 5000 });
      const client = new RpcClient(connection, { clock: realClock, log: silentLog });
      const info = await client.call("agent.info", {}, { deadlineMs: 5000 });
      client.close();
      return info;
    };
    await eventually("a new one is there", async () => {
      try {
        return (await asAnybody()).pid !== before.pid;
      } catch (error) {
        // Who is in the middle of something with the old one when that leaves asks again; somebody is always there.
        assert.doesNotMatch(String(error), /ENOENT|ECONNREFUSED/);
        return false;
      }
    });
    const { pid } = await asAnybody();
    await eventually("the one before has ended", () => a.ending !== undefined);
    assert.equal(a.ending, "exit code 0");
    // This test has not started it, so it ends it.
    process.kill(pid, "SIGTERM");
    await eventually("it has ended", () => hasEnded(pid));
    await a.end();
    await a.start();
  });

  test("is refused where no agent runs, and says what to do", async () => {
    await b.end();
    await assert.rejects(b.start(["--takeover"]), /cannot take over .* start rametd without --takeover/s);
    await b.end();
    await b.start();
  });
});
