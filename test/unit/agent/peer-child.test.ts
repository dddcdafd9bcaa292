import assert from "node:assert/strict";
import { test } from "node:test";
import { deferred, LOCAL_IDENTITY, silentLog } from "../../../src/base/index.js";
import { RemoteError } from "../../../src/control/index.js";
import { PeerChild } from "../../../src/agent/transfers/peer-child.js";
import { ManualClock } from "../../support/lane-clock.js";

test("what was sent ahead too early is sent again to a prepared child, whatever its host said of that", async () => {
  // Where a guest could not be taken over, an agent says of nothing that it is not there.
  for (const early of ["no-such-transfer", "not-ready", "unknown-method"]) {
    const refused = deferred<void>();
    const calls: string[] = [];
    const call = async (method: string): Promise<object> => {
      calls.push(method);
      if (method === "peer.prepare") {
        await refused.promise;
        return { ready: true, missingFiles: [], takesAhead: true };
      }
      if (calls.length > 2) return { taken: true };
      refused.resolve();
      throw new RemoteError(early, "by a test");
    };
    const client = { onEvent: () => () => {}, call };
    const options = {
      transfer: 7,
      kind: "fork",
      paused: false,
      peers: { link: async () => ({ client, identity: LOCAL_IDENTITY }) },
      url: "wss://192.0.2.1:7070",
      host: "b",
      making: { prepare: { guest: {} }, names: { next: () => "web-1", hasMore: false } },
      onAgreed: () => {},
      onNamed: () => {},
      clock: new ManualClock(),
      log: silentLog,
    };
    const child = new PeerChild(options as unknown as ConstructorParameters<typeof PeerChild>[0]);
    await Promise.all([child.prepare(), child.sendAhead(Buffer.from("head"))]);
    assert.deepEqual(calls, ["peer.prepare", "peer.ahead", "peer.ahead"], early);
  }
});
