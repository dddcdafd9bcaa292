import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { ParamsInput, TransferView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const PORT = 8080;
const CHILD_PORT = 8090;
const MEMORY_MIB = 128;
const STAMPED_MIB = 32;
const PAGES_STAMPED = STAMPED_MIB * 256;
/** The sample guest's memory takes some seconds at this rate. */
const RATE = 16 * 1024 * 1024;

async function show(host: Host, transfer: number): Promise<TransferView> {
  return (await host.call("transfer.show", { transfer })).transfer;
}

describe("children on several hosts pass on to each other", () => {
  let hosts: Hosts;
  let a: Host;
  let children: Host[];
  before(async () => {
    hosts = await Hosts.start(4, { tls: true, configuration: { limits: { memoryMib: 1536 } } });
    a = hosts.at(0);
    children = [hosts.at(1), hosts.at(2), hosts.at(3)];
    await runSample(a, { name: "web", memoryMiB: MEMORY_MIB, hostPort: PORT });
    // The parent writes on while its children are filled, so that there are pushes, too.
    await ask(a, PORT, `/stamp/start?mib=${STAMPED_MIB}`);
    await eventually(
      "the guest has written all its stamped pages",
      async () => (await ask<{ generation: number }>(a, PORT, "/stamp/status")).generation > 0,
    );
    // Its children write on, too: at this pace all of them leave the agents their processors.
    await ask(a, PORT, `/stamp/pace?rate=${STAMPED_MIB / 4}`);
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  /** A child on each of the other hosts, by number; every page is compared at the end. */
  async function fork(params: Partial<ParamsInput<"guest.fork">>): Promise<number[]> {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b", "c", "d"],
      names: ["web-1", "web-2", "web-3"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      ...params,
    });
    for (const { state, error } of transfers) assert.equal(state, "running", error?.message);
    return transfers.map(({ transfer }) => transfer);
  }

  /** All are complete, were given what the parent had at the instant, and read it so; then they are removed. */
  async function assertWhole(transfers: readonly number[]): Promise<TransferView[]> {
    await whenTransfersEnd(a);
    const views = await Promise.all(transfers.map((transfer) => show(a, transfer)));
    for (const [index, view] of views.entries()) {
      assert.equal(view.phase, "complete", view.message);
      assert.deepEqual(view.verify, { checked: MEMORY_MIB * 256, mismatches: 0 });
      const host = children[index] as Host;
      const stamps = await ask<{ bad: number }>(host, CHILD_PORT + index, "/stamp/verify?order=random");
      assert.equal(stamps.bad, 0);
      await host.call("guest.kill", { name: `web-${index + 1}` });
      await host.call("guest.remove", { name: `web-${index + 1}` });
    }
    return views;
  }

  const bulkBytes = (views: readonly TransferView[]): number[] => views.map(({ bytes }) => bytes.bulk);

  for (const [relay, from] of [
    ["chain", [undefined, "b", "c"]],
    ["tree", [undefined, "b", "b"]],
  ] as const) {
    test(`in a ${relay} the parent sends bulk to the first alone`, async () => {
      const transfers = await fork({ relay });
      await whenTransfersEnd(a);
      const given = await Promise.all(
        transfers.map(async (transfer, index) => (await show(children[index] as Host, transfer)).relay),
      );
      const views = await assertWhole(transfers);
      assert.deepEqual(
        views.map((view) => view.relay?.from),
        from,
      );
      assert.ok((given[0]?.passedOn ?? 0) >= PAGES_STAMPED, "the first passes on");
      for (const relayed of given.slice(1)) assert.ok((relayed?.pages ?? 0) >= PAGES_STAMPED);
      const [first = 0, ...others] = bulkBytes(views);
      // Digests of all pages, half a MiB, and reports go to and fro in any case.
      for (const bytes of others) assert.ok(bytes < first / 4, `${bytes} of ${first} bytes`);
    });
  }

  test("with --relay none the parent sends bulk to each", async () => {
    const views = await assertWhole(await fork({ relay: "none" }));
    const [first = 0, ...others] = bulkBytes(views);
    for (const bytes of others) assert.ok(bytes > first / 2, `${bytes} of ${first} bytes`);
    for (const { relay } of views) assert.equal(relay, undefined);
  });

  test("further children of a host are fed by its first", async () => {
    const { transfers } = await a.call("guest.fork", { name: "web", to: ["b", "c"], count: 4, verify: true });
    await whenTransfersEnd(a);
    const views = await Promise.all(transfers.map(({ transfer }) => show(a, transfer)));
    assert.deepEqual(
      views.map(({ phase, verify, relay }) => [phase, verify?.mismatches, relay?.from]),
      [
        ["complete", 0, undefined],
        ["complete", 0, "b"],
        ["complete", 0, "b"],
        ["complete", 0, "c"],
      ],
    );
    for (const [index, { guest }] of transfers.entries()) {
      const host = children[index % 2] as Host;
      await host.call("guest.kill", { name: guest });
      await host.call("guest.remove", { name: guest });
    }
  });

  // RAMET_KILLS=all: each of them.
  for (const [who, index] of [
    ["the first", 0],
    ["one in the middle", 1],
    ["the last", 2],
  ] as const) {
    if (process.env["RAMET_KILLS"] !== "all" && index !== 1) continue;
    test(`when the agent of ${who} is killed and started again, nothing is lost`, async () => {
      const transfers = await fork({ rateLimitBytesPerSecond: RATE });
      const victim = children[index] as Host;
      await eventually("it has something", async () => {
        const { pages } = await show(victim, transfers[index] as number);
        return pages.received - pages.zero > PAGES_STAMPED / 8;
      });
      await victim.end("SIGKILL");
      await victim.start();
      await assertWhole(transfers);
    });
  }

  test("when the parent's agent is killed and started again, they go on passing on", async () => {
    const transfers = await fork({ rateLimitBytesPerSecond: RATE });
    const last = children[2] as Host;
    await eventually("the last has something", async () => {
      const { relay } = await show(last, transfers[2] as number);
      return (relay?.pages ?? 0) > PAGES_STAMPED / 8;
    });
    await a.end("SIGKILL");
    await a.start();
    const [first = 0, ...others] = bulkBytes(await assertWhole(transfers));
    for (const bytes of others) assert.ok(bytes < first / 2, `${bytes} of ${first} bytes`);
  });

  test("when a child in the middle is removed, those behind it are sent the rest", async () => {
    const transfers = await fork({ rateLimitBytesPerSecond: RATE });
    const [, middle, last] = children as [Host, Host, Host];
    await eventually("the last has something", async () => {
      const { relay } = await show(last, transfers[2] as number);
      return (relay?.pages ?? 0) > PAGES_STAMPED / 8;
    });
    await middle.call("guest.kill", { name: "web-2" });
    await whenTransfersEnd(a);
    assert.deepEqual(
      (await Promise.all(transfers.map((transfer) => show(a, transfer)))).map(({ phase }) => phase),
      ["complete", "failed", "complete"],
    );
    const stamps = await ask<{ bad: number }>(last, CHILD_PORT + 2, "/stamp/verify?order=random");
    assert.equal(stamps.bad, 0);
    for (const [index, host] of children.entries()) {
      await host.call("guest.kill", { name: `web-${index + 1}` }).catch(() => {});
      await host.call("guest.remove", { name: `web-${index + 1}` });
    }
  });
});
