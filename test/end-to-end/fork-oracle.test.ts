import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { Agent, get } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import type { TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

interface Verified {
  checked: number;
  bad: number;
}

const PARENT_PORT = 8110;
const CHILD_PORT = 8120;

/** One TCP connection to the guest that asks without rest. */
class SteadyClient {
  answers = 0;
  connections = 0;
  readonly errors: string[] = [];
  readonly #url: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #going = true;
  readonly #done: Promise<void>;

  constructor(host: Host, hostPort: number) {
    this.#url = `http://${host.address}:${hostPort}/counter`;
    this.#done = this.#run();
  }

  async stop(): Promise<void> {
    this.#going = false;
    await this.#done;
    this.#agent.destroy();
  }

  async #run(): Promise<void> {
    while (this.#going) {
      await this.#ask().catch((error: unknown) => this.errors.push(String(error)));
      await sleep(realClock, 5);
    }
  }

  #ask(): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = get(this.#url, { agent: this.#agent, timeout: 30_000 }, (response) => {
        response.resume();
        response.on("end", () => {
          this.answers += 1;
          if (!request.reusedSocket) this.connections += 1;
          resolve();
        });
        response.on("error", reject);
      });
      request.on("timeout", () => request.destroy(new Error("no answer")));
      request.on("error", reject);
    });
  }
}

function assertAllVerified(view: TransferView, pages: number): void {
  assert.equal(view.phase, "complete", view.message);
  assert.deepEqual(view.verify, { checked: pages, mismatches: 0 });
  assert.equal(view.pages.received, pages);
}

/** What the kernel says is registered in an emulator: `um` for missing pages, `uw` for protected ones (proc(5), VmFlags). */
function registrationOf(pid: number): string[] {
  const flags = readFileSync(`/proc/${pid}/smaps`, "utf8").match(/^VmFlags:.*$/gm) ?? [];
  return flags.filter((line) => /\b(um|uw)\b/.test(line));
}

async function pidOf(host: Host, name: string): Promise<number> {
  const { guest } = await host.call("guest.show", { name });
  assert.ok(guest.pid !== undefined, `guest ${name} has an emulator`);
  return guest.pid;
}

async function ramOf(host: Host, name: string): Promise<string> {
  const { guest } = await host.call("guest.show", { name });
  return join(host.memoryDirectory, guest.id, "ram");
}

/** A digest of each page of a memory file, read as any program would read it. Only for memory that nobody fills or writes. */
function digestsOf(path: string): string[] {
  const file = openSync(path, "r");
  const page = Buffer.alloc(4096);
  const digests: string[] = [];
  for (let at = 0; readSync(file, page, 0, page.length, at) === page.length; at += page.length) {
    digests.push(hash("sha1", page, "base64"));
  }
  closeSync(file);
  return digests;
}

describe("what children are given", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    hosts = await Hosts.start(3, { port: 7171 });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  afterEach(async () => {
    for (const host of hosts.all) await host.removeGuests();
    assert.deepEqual(hosts.problems, []);
  });
  after(() => hosts.stop());

  test("three children on two hosts, of a 256 MiB guest that writes as fast as it can: every page, by digest and by the guest's own check", async () => {
    const c = hosts.at(2);
    await runSample(a, { name: "parent", memoryMiB: 256, hostPort: PARENT_PORT });
    await ask(a, PARENT_PORT, "/stamp/start?mib=150&fill=page");
    await eventually(
      "all was written once",
      async () => (await ask<{ generation: number }>(a, PARENT_PORT, "/stamp/status")).generation > 1,
    );
    const client = new SteadyClient(a, PARENT_PORT);
    await eventually("the client is served", () => client.answers > 3);
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["b", "c"],
      count: 3,
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
    });
    await whenTransfersEnd(a, 240_000);
    await client.stop();
    assert.deepEqual(client.errors, [], "a client of the parent sees no error");
    assert.equal(client.connections, 1, "a client's connection to the parent goes on across the fork");
    let pushed = 0;
    const counters: number[] = [];
    for (const [index, { transfer, guest, host }] of transfers.entries()) {
      const { transfer: view } = await a.call("transfer.show", { transfer });
      assertAllVerified(view, 65_536);
      pushed += view.pages.push;
      const childHost = host === "b" ? b : c;
      counters.push((await ask(childHost, CHILD_PORT + index)).counter);
      const { checked, bad } = await ask<Verified>(
        childHost,
        CHILD_PORT + index,
        "/stamp/verify?order=random",
      );
      assert.deepEqual({ checked, bad }, { checked: 150 * 256, bad: 0 });
      assert.deepEqual(
        registrationOf(await pidOf(childHost, guest)),
        [],
        "nothing of a complete child is registered",
      );
    }
    assert.ok(pushed > 0, "the parent wrote pages that had not been sent");
    assert.equal(
      new Set(counters).size,
      1,
      `children of one instant count on from one value: ${counters.join(", ")}`,
    );
    assert.deepEqual(registrationOf(await pidOf(a, "parent")), [], "nothing of the parent is protected");
    const own = await ask<Verified>(a, PARENT_PORT, "/stamp/verify");
    assert.deepEqual({ checked: own.checked, bad: own.bad }, { checked: 150 * 256, bad: 0 });
  });

  test("a child that faults every page in random order before the sweep may run, and gets the rest by the sweep", async () => {
    await runSample(a, { name: "parent", memoryMiB: 128, hostPort: PARENT_PORT });
    await ask(a, PARENT_PORT, "/stamp/start?mib=40&fill=page");
    await eventually(
      "all was written once",
      async () => (await ask<{ generation: number }>(a, PARENT_PORT, "/stamp/status")).generation > 1,
    );
    await ask(a, PARENT_PORT, "/stamp/stop");
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["b"],
      names: ["child"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      sweep: "held",
    });
    const transfer = transfers[0]?.transfer ?? 0;
    const { checked, bad } = await ask<Verified>(b, CHILD_PORT, "/stamp/verify?order=random&seed=7");
    assert.deepEqual({ checked, bad }, { checked: 40 * 256, bad: 0 });
    const { transfer: held } = await a.call("transfer.show", { transfer });
    assert.equal(held.pages.sweep, 0, "nothing was swept");
    assert.ok(held.pages.fault >= 40 * 256 * 0.9, `${held.pages.fault} pages came by fault`);
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await whenTransfersEnd(a);
    const { transfer: view } = await a.call("transfer.show", { transfer });
    assertAllVerified(view, 32_768);
    assert.ok(view.pages.sweep > 0);
  });

  test("only the sweep: the memory files of parent and child are alike, byte for byte", async () => {
    await runSample(a, { name: "parent", memoryMiB: 128, hostPort: PARENT_PORT });
    await ask(a, PARENT_PORT, "/stamp/start?mib=30&fill=page");
    await eventually(
      "all was written once",
      async () => (await ask<{ generation: number }>(a, PARENT_PORT, "/stamp/status")).generation > 1,
    );
    // Neither child ever executes an instruction, so nothing but the transfer writes their memory. They are of one instant but
    // of separate transfers to separate hosts, one compressed by itself: what both have by mistake would have to be the same mistake.
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["a", "b"],
      names: ["left", "right"],
      paused: true,
      verify: true,
      memory: "copied",
      compression: "lz4",
    });
    await whenTransfersEnd(a);
    for (const { transfer } of transfers) {
      const { transfer: view } = await a.call("transfer.show", { transfer });
      assertAllVerified(view, 32_768);
    }
    const [left, right] = [digestsOf(await ramOf(a, "left")), digestsOf(await ramOf(b, "right"))];
    assert.equal(left.length, 32_768);
    // Loading a device state writes the generation id of the child, which no two children share, and nothing else.
    const differing = left.flatMap((digest, page) => (digest === right[page] ? [] : [page]));
    assert.ok(differing.length <= 1, `pages ${differing.join(", ")} differ`);
    // And against the parent's own file: what it has not written since must be the same in the child.
    await ask(a, PARENT_PORT, "/stamp/stop");
    const parent = digestsOf(await ramOf(a, "parent"));
    const same = parent.filter((digest, page) => digest === left[page]).length;
    assert.ok(same > 32_768 * 0.6, `${same} of 32768 pages are the parent's`);
  });
});
