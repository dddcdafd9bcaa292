import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import type { ParamsInput, TransferView } from "../../src/control/index.js";
import { eventually, type Host } from "../support/hosts.js";
import { ask, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest, transferOf, TwoHosts } from "../support/two-hosts.js";

const KIB = 1024;
const MIB = 1024 * KIB;

describe("a transfer is steered while it runs", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests({ web: true });
  before(() => ({ a, b } = two));

  const fork = (params: Partial<ParamsInput<"guest.fork">>): Promise<number> =>
    two.forkWeb({ verify: true, ...params });
  const viewOf = (transfer: number): Promise<TransferView> => transferOf(a, transfer);
  const steeredOf = ({ sweep, rateLimitBytesPerSecond, priority, compression }: TransferView) => {
    return { sweep, rateLimitBytesPerSecond, priority, compression: compression?.choice };
  };
  const removeChild = (): Promise<void> => removeGuest(b, "child");

  test("its rate, priority and compression are changed at once, and the next agent keeps to them", async () => {
    const transfer = await fork({ rateLimitBytesPerSecond: 64 * KIB, compression: "none" });
    const fast = { rateLimitBytesPerSecond: 128 * KIB, priority: "low", compression: "lz4" } as const;
    const steered = await a.call("transfer.steer", { transfer, ...fast });
    assert.deepEqual(steeredOf(steered.transfer), { sweep: "on", ...fast });
    await a.end("SIGKILL");
    await a.start();
    await eventually("the next agent goes on", async () => (await viewOf(transfer)).phase === "paging");
    assert.deepEqual(steeredOf(await viewOf(transfer)), { sweep: "on", ...fast });
    await ask(b, 8090);
    await a.call("transfer.steer", { transfer, rateLimitBytesPerSecond: 0 });
    await whenTransfersEnd(a);
    const view = await viewOf(transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: 65536, mismatches: 0 });
    assert.equal(view.rateLimitBytesPerSecond, undefined);
    await assert.rejects(a.call("transfer.steer", { transfer, priority: "high" }), { code: "bad-state" });
    await assert.rejects(a.call("transfer.steer", { transfer }), { code: "bad-params" });
    await removeChild();
  });

  test("compression is found to be worth it where bytes are scarce", async () => {
    // So few that this is so on a machine that is busy with other tests, too.
    const transfer = await fork({ rateLimitBytesPerSecond: 2 * MIB });
    assert.deepEqual((await viewOf(transfer)).compression?.choice, "auto");
    await eventually(
      "fewer bytes are sent than pages hold",
      async () => {
        const { compression, bytes, pages } = await viewOf(transfer);
        const isFound = compression?.measured !== undefined && compression.now === "lz4";
        return isFound && bytes.bulk < 0.9 * 4 * KIB * (pages.received - pages.zero);
      },
      60_000,
    );
    await a.call("transfer.steer", { transfer, rateLimitBytesPerSecond: 0 });
    await whenTransfersEnd(a);
    const { verify } = await viewOf(transfer);
    assert.deepEqual(verify, { checked: 65536, mismatches: 0 });
    await removeChild();
  });
});
