import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { codeOf, deferred, silentLog, type Identity } from "../../../src/base/index.js";
import { RemoteError } from "../../../src/control/index.js";
import type { Connection } from "../../../src/lane/index.js";
import type { LaneEnd } from "../../../src/transfer/index.js";
import type { UrgentLane } from "../../../src/agent/faults/fault-thread.js";
import { LaneRoutes } from "../../../src/agent/transfers/lane-routes.js";
import { LanesAhead, MAX_TRANSFERS_PER_PEER } from "../../../src/agent/transfers/lanes-ahead.js";
import { MAX_SPARES_PER_PEER, SpareLanes } from "../../../src/agent/transfers/spare-lanes.js";
import type { Peers } from "../../../src/agent/transfers/peers.js";
import { ManualClock } from "../../support/lane-clock.js";

const URL = "ws://127.0.0.12:7170";
const WHO: Identity = { kind: "certificate", name: "CN=b", roles: ["peer"] };
const IDLE_MS = 60_000;

/** A lane of which only its waiting and its end matter. */
class FakeLane {
  readonly closed: LaneEnd[] = [];
  onEnd: (() => void) | undefined;

  park(onEnd: () => void): void {
    this.onEnd = onEnd;
  }

  close(end: LaneEnd): void {
    this.closed.push(end);
  }
}

/** A host whose peer dials what it is asked for, unless it is told to refuse. */
function host() {
  const clock = new ManualClock();
  const routes = new LaneRoutes({ isWhole: () => true });
  const lanes: FakeLane[] = [];
  const asked: { transfer: number; token: string }[] = [];
  const ends: (() => void)[] = [];
  const peer = { refusal: undefined as RemoteError | undefined, identity: WHO };
  const client = {
    onEnd: (handler: () => void) => void ends.push(handler),
    call: async (method: string, params: { transfer: number; token: string; parentUrl: string }) => {
      assert.equal(method, "peer.spare");
      assert.equal(params.parentUrl, "ws://127.0.0.11:7170");
      if (peer.refusal !== undefined) throw peer.refusal;
      asked.push(params);
      const taker = routes.find(peer.identity, params.transfer, params.token);
      for (const name of ["urgent", "bulk"] as const) {
        const lane = new FakeLane();
        lanes.push(lane);
        taker.acceptLane(name, 1, lane as unknown as Connection & UrgentLane, { lz4: true });
      }
      return {};
    },
  };
  let link: unknown = { client, identity: WHO };
  const peers = {
    isSelf: (url: string) => url.startsWith("unix:"),
    link: async () => link,
    ownUrlFor: () => "ws://127.0.0.11:7170",
  } as unknown as Peers;
  let last = 0;
  const identify = () => ({ transfer: (last += 1), token: `${last}`.padEnd(32, "t") });
  const spares = new SpareLanes({ routes, peers, identify, idleMs: IDLE_MS, clock, log: silentLog });
  const endLink = (): void => {
    link = { client, identity: WHO };
    for (const end of ends.splice(0)) end();
  };
  const soon = async (ms: number): Promise<void> => {
    clock.advance(ms);
    for (let turns = 0; turns < 5; turns += 1) await turn();
  };
  return { clock, routes, lanes, asked, peer, spares, endLink, soon };
}

describe("spare lanes", () => {
  test("as many transfers as wanted have their lanes, each is taken once, and one that is taken is replaced later", async () => {
    const { spares, asked, lanes, soon } = host();
    await spares.want(URL, "web", 2);
    assert.equal(asked.length, 2);
    const [first, second] = [spares.take(URL), spares.take(URL)];
    assert.ok(first !== undefined && second !== undefined);
    assert.notEqual(first.transfer, second.transfer);
    assert.deepEqual(first.agreedWith, { kind: "certificate", name: "CN=b" });
    assert.equal(spares.take(URL), undefined);
    assert.equal(asked.length, 2, "nothing is dialled while children start");
    await soon(1000);
    assert.equal(asked.length, 4);
    spares.close();
    assert.deepEqual(
      lanes.map(({ closed }) => closed.length),
      [0, 0, 0, 0, 1, 1, 1, 1],
      "what was taken is its taker's",
    );
  });

  test("a transfer that begins is given its lanes, and whoever comes with its token later is led to it", async () => {
    const { spares, routes } = host();
    await spares.want(URL, "web", 1);
    const spare = spares.take(URL);
    assert.ok(spare !== undefined);
    const taken: string[] = [];
    const taker = {
      holder: () => spare.agreedWith,
      acceptLane: (name: string, epoch: number) => void taken.push(`${name} ${epoch}`),
      shareFile: () => 7,
    };
    const close = routes.open(spare.transfer, spare.token, taker);
    spare.handTo(taker);
    assert.deepEqual(taken, ["urgent 1", "bulk 1"]);
    assert.equal(spare.shareFile(), 7);
    assert.equal(routes.find(WHO, spare.transfer, spare.token), taker);
    close();
    assert.equal(routes.has(spare.transfer), false);
  });

  test("one of which a lane ends is not taken any more, and lets nobody in", async () => {
    const { spares, routes, lanes, asked } = host();
    await spares.want(URL, "web", 1);
    lanes[0]?.onEnd?.();
    assert.equal(spares.take(URL), undefined);
    assert.equal(lanes[1]?.closed.length, 1);
    assert.equal(routes.has(asked[0]?.transfer ?? 0), false);
  });

  test("they go with the connection they were agreed over, when nobody uses them, and when nobody wants them", async () => {
    const { spares, lanes, endLink, soon } = host();
    await spares.want(URL, "web", 1);
    endLink();
    assert.equal(spares.take(URL), undefined);
    await spares.want(URL, "web", 1);
    await soon(IDLE_MS);
    assert.equal(spares.take(URL), undefined);
    await spares.want(URL, "web", 1);
    await spares.want(URL, "web", 0);
    assert.equal(spares.take(URL), undefined);
    assert.ok(lanes.length === 6 && lanes.every(({ closed }) => closed.length === 1));
  });

  test("there is a bound, whatever is wanted, and none for the host itself", async () => {
    const { spares, asked } = host();
    await spares.want("unix:/run/ramet.sock", "web", 4);
    assert.equal(asked.length, 0);
    await spares.want(URL, "web", 32);
    await spares.want(URL, "db", 32);
    assert.equal(asked.length, MAX_SPARES_PER_PEER);
  });

  test("a host that dials none, or is older, changes nothing", async () => {
    const { spares, peer, routes } = host();
    peer.refusal = new RemoteError("unknown-method", "peer.spare is not a method of this agent");
    await spares.want(URL, "web", 2);
    assert.equal(spares.take(URL), undefined);
    assert.equal(routes.has(1), false);
  });
});

describe("lanes ahead of their transfer", () => {
  const wanted = { transfer: 7, token: "t".repeat(32), url: "ws://127.0.0.1:1", holder: WHO };

  test("when one of the two cannot be dialled, the other is ended", async () => {
    const urgent = new FakeLane();
    const faults = { dialAhead: async () => ({ ...laneAhead(urgent), lane: 1 }) };
    const dialler = {
      configuration: { key: Buffer.from("key") },
      credentials: undefined,
      clock: new ManualClock(),
    };
    const ahead = new LanesAhead({ faults, dialler });
    // Nobody listens there.
    await assert.rejects(ahead.dial(wanted), { code: "unreachable" });
    assert.equal(urgent.closed.length, 1);
    assert.equal(ahead.take(wanted), undefined);
  });

  test("one peer leaves room for others, however many it asks for", async () => {
    const undialled = deferred<never>();
    const dialler = { configuration: {}, credentials: undefined, clock: new ManualClock() };
    const ahead = new LanesAhead({ faults: { dialAhead: () => undialled.promise }, dialler });
    const dials: Promise<void>[] = [];
    for (let transfer = 1; transfer <= MAX_TRANSFERS_PER_PEER; transfer += 1)
      dials.push(ahead.dial({ ...wanted, transfer }));
    await assert.rejects(ahead.dial({ ...wanted, transfer: 100 }), {
      code: "busy",
      message: /of CN=b already/,
    });
    const other = ahead.dial({ ...wanted, transfer: 101, holder: { kind: "certificate", name: "CN=c" } });
    undialled.reject(new Error("by a test"));
    const ends = await Promise.allSettled([...dials, other]);
    assert.ok(ends.every(({ status }) => status === "rejected"));
    assert.ok(ends.every((end) => end.status === "rejected" && codeOf(end.reason) !== "busy"));
  });

  function laneAhead(lane: FakeLane) {
    return { park: (onEnd: () => void) => lane.park(onEnd), close: (end: LaneEnd) => lane.close(end) };
  }
});
