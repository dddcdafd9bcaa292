import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { after, describe, test } from "node:test";
import { LOCAL_IDENTITY, silentLog, type Identity } from "../../../src/base/index.js";
import type { RpcServerSession } from "../../../src/control/index.js";
import { EventHub } from "../../../src/agent/events.js";
import { connectGuest, connectOrGoWithout } from "../../../src/agent/network/guest-link.js";
import {
  networkFromPeer,
  networkOfForked,
  networkOfMigrated,
  networkView,
} from "../../../src/agent/network/translate.js";
import { BootStore } from "../../../src/agent/store/boot-store.js";
import { BootUploads } from "../../../src/agent/store/boot-uploads.js";
import { chosenName, NumberedNames } from "../../../src/agent/transfers/child-names.js";
import { LaneRoutes } from "../../../src/agent/transfers/lane-routes.js";
import { Peers } from "../../../src/agent/transfers/peers.js";
import { TransferBook } from "../../../src/agent/transfers/transfer-book.js";
import { TransferEntry } from "../../../src/agent/transfers/transfer-entry.js";
import { whatBecameOf } from "../../../src/agent/transfers/undecided.js";
import { LatencyHistogram, NOTHING_MOVED } from "../../../src/transfer/index.js";
import { eventually } from "../../support/hosts.js";
import { ManualClock } from "../../support/lane-clock.js";
import { FakeEmulator } from "./fakes.js";

const MAC = "52:54:00:00:00:01";
const FORWARD = { host: "127.0.0.11", hostPort: 8080, guestPort: 80, protocol: "tcp" as const };
const API_FORWARD = { address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" as const };

describe("the network of a child", () => {
  test("a migrated guest takes its own along; forwards follow the host they come to", () => {
    const user = {
      mode: "user" as const,
      mac: MAC,
      forwards: [FORWARD, { ...FORWARD, host: "0.0.0.0", hostPort: 1 }],
    };
    const moved = networkOfMigrated(user, "127.0.0.11");
    assert.deepEqual(moved, {
      network: {
        mode: "user",
        mac: MAC,
        forwards: [API_FORWARD, { ...API_FORWARD, address: "0.0.0.0", hostPort: 1 }],
      },
      attached: true,
    });
    const there = networkFromPeer({ ...moved }, "127.0.0.12");
    assert.deepEqual(there.network, { mode: "user", mac: MAC });
    assert.deepEqual(
      there.forwards.map(({ host }) => host),
      ["127.0.0.12", "0.0.0.0"],
    );
    const tap = networkOfMigrated({ mode: "tap", mac: MAC, tap: "ramet0", bridge: "br0" }, "");
    assert.deepEqual(tap, { network: { mode: "tap", mac: MAC, bridge: "br0" }, attached: true });
    assert.deepEqual(networkOfMigrated({ mode: "none" }, ""), { network: { mode: "none" }, attached: true });
  });

  test("a forked child is cut off, unless it is to be reached", () => {
    const user = { mode: "user" as const, mac: MAC, forwards: [FORWARD] };
    const cutOff = networkOfForked(user, { attached: false, forwards: [] });
    assert.deepEqual(networkFromPeer(cutOff as never, ""), {
      network: { mode: "isolated", mac: MAC },
      forwards: [],
    });
    const reached = networkOfForked(user, { attached: false, forwards: [API_FORWARD] });
    assert.deepEqual(networkFromPeer(reached as never, "127.0.0.12").forwards, [
      { ...FORWARD, host: "127.0.0.12" },
    ]);
    const attached = networkOfForked(user, { attached: true, forwards: [] });
    assert.deepEqual(networkFromPeer(attached as never, ""), {
      network: { mode: "user", mac: MAC },
      forwards: [],
    });
    const tap = networkOfForked(
      { mode: "tap", mac: MAC, tap: "ramet0", bridge: "br0" },
      { attached: false, forwards: [] },
    );
    assert.equal(tap.attached, false);
    const grandchild = networkOfForked({ mode: "isolated", mac: MAC }, { attached: true, forwards: [] });
    assert.equal(grandchild.attached, false, "a child cut off has no network to give on");
  });

  test("is shown as the API knows it", () => {
    assert.deepEqual(networkView({ mode: "isolated", mac: MAC }), { mode: "user", mac: MAC, forwards: [] });
    assert.deepEqual(networkView({ mode: "user", mac: MAC, forwards: [FORWARD] }), {
      mode: "user",
      mac: MAC,
      forwards: [{ ...API_FORWARD, address: "127.0.0.11" }],
    });
  });

  test("when one port is refused, those added before are taken back", async () => {
    const emulator = new FakeEmulator();
    const forwards = [FORWARD, { ...FORWARD, hostPort: 666 }];
    await assert.rejects(connectGuest(emulator.asEmulator, { mode: "user", mac: MAC, forwards }), /taken/);
    assert.deepEqual(emulator.calls, ["add 8080", "add 666", "remove 666", "remove 8080"]);
  });

  test("a guest that must run on in any case does so without its network, and says so", async () => {
    const network = { mode: "user" as const, mac: MAC, forwards: [{ ...FORWARD, hostPort: 666 }] };
    assert.match(
      (await connectOrGoWithout(new FakeEmulator().asEmulator, network)) ?? "",
      /runs, but.*taken/,
    );
    const free = { ...network, forwards: [FORWARD] };
    assert.equal(await connectOrGoWithout(new FakeEmulator().asEmulator, free), undefined);
  });

  test("what an ended agent left connected is connected anew", async () => {
    const emulator = new FakeEmulator();
    emulator.forwarded.add(8080);
    const forwards = [FORWARD, { ...FORWARD, hostPort: 8081 }];
    await connectGuest(emulator.asEmulator, { mode: "user", mac: MAC, forwards });
    assert.deepEqual([...emulator.forwarded], [8080, 8081]);
  });
});

describe("names of children", () => {
  test("siblings share a row; a chosen name is the only one", () => {
    const row = new NumberedNames("web");
    assert.deepEqual([row.next(), row.next(), row.hasMore], ["web-1", "web-2", true]);
    const long = new NumberedNames("x".repeat(58) + "-yyyy").next();
    assert.equal(long, `${"x".repeat(58)}-1`);
    const chosen = chosenName("mine");
    assert.deepEqual([chosen.next(), chosen.hasMore], ["mine", false]);
  });
});

function entry(transfer: number, clock: ManualClock, role: "parent" | "child" = "parent"): TransferEntry {
  return new TransferEntry({
    transfer,
    kind: "fork",
    role,
    guest: "web",
    peerGuest: "web-1",
    host: "b",
    pageCount: 10,
    clock,
  });
}

describe("the book of transfers", () => {
  test("tells changes at once and progress while something runs", () => {
    const clock = new ManualClock();
    const events = new EventHub();
    const seen: string[] = [];
    events.on("transfer", ({ transfer }) => seen.push(`${transfer.id} ${transfer.phase}`));
    const book = new TransferBook({ events, clock });
    const first = entry(1, clock);
    book.add(first);
    first.enter("arming");
    first.enter("arming");
    assert.deepEqual(seen, ["1 preparing", "1 arming"]);
    clock.advance(1000);
    assert.equal(seen.length, 7, "five times a second");
    first.enter("complete");
    clock.advance(1000);
    assert.equal(seen.at(-1), "1 complete");
    assert.equal(clock.pending, 0, "nothing runs, nothing is told");
    assert.throws(() => first.enter("failed"), { name: "AssertionError" });
  });

  test("finds the parent's side unless the other is named, and forgets the oldest that are over", () => {
    const clock = new ManualClock();
    const book = new TransferBook({ events: new EventHub(), clock });
    const child = entry(1, clock, "child");
    const parent = entry(1, clock);
    book.add(child);
    assert.equal(book.find(1), child);
    book.add(parent);
    assert.equal(book.find(1), parent);
    assert.equal(book.find(1, "child"), child);
    assert.throws(() => book.find(2), { code: "no-such-transfer" });
    for (let transfer = 10; transfer < 200; transfer += 1) {
      const over = entry(transfer, clock);
      book.add(over);
      over.enter("complete");
    }
    assert.ok(book.list({ active: false }).length <= 103);
    assert.deepEqual(book.active, [child, parent]);
    assert.throws(() => book.find(10), { code: "no-such-transfer" });
    book.close();
  });

  test("one that has moved nothing yet says so of everything that is counted", () => {
    const { pages, bytes, reconnects, link } = entry(1, new ManualClock()).view();
    assert.deepEqual(pages, {
      total: 10,
      ...{ received: 0, fault: 0, push: 0, sweep: 0, zero: 0, duplicates: 0 },
    });
    assert.deepEqual(bytes, { control: 0, urgent: 0, bulk: 0 });
    assert.equal(reconnects, 0);
    assert.equal(link, undefined);
    assert.deepEqual(NOTHING_MOVED.faults, { waiting: 0, ...new LatencyHistogram().summary() });
  });

  test("the view of one that is over stays as it was", () => {
    const clock = new ManualClock();
    const one = entry(1, clock);
    const counts = { ...NOTHING_MOVED, total: 10, received: 4, linked: true };
    one.countFrom(() => ({ ...counts }));
    clock.advance(500);
    one.enter("failed", { error: new Error("x".repeat(5000)), message: "why" });
    counts.received = 9;
    clock.advance(500);
    const view = one.view();
    assert.equal(view.pages.received, 4);
    assert.equal(view.elapsedMs, 500);
    assert.equal(view.error?.code, "internal");
    assert.equal(view.error?.message.length, 1024);
  });
});

describe("routes of page lanes", () => {
  test("a lane needs the transfer's number and its token, and to be of whom the transfer was agreed with", () => {
    const routes = new LaneRoutes({ isWhole: () => true });
    const agreed: { with?: Identity } = {};
    const taker = { holder: () => agreed.with, acceptLane: () => {}, shareFile: () => undefined };
    const close = routes.open(7, "secret", taker);
    const holder = (name: string): Identity => ({ kind: "certificate", name, roles: ["peer"] });
    assert.throws(() => routes.find(holder("CN=b"), 7, "secret"), { code: "unknown-transfer" });
    agreed.with = holder("CN=b");
    assert.equal(routes.find(holder("CN=b"), 7, "secret"), taker);
    for (const other of [holder("CN=c"), LOCAL_IDENTITY, { ...LOCAL_IDENTITY, name: "CN=b" }]) {
      assert.throws(() => routes.find(other, 7, "secret"), { code: "unknown-transfer", fatal: true });
    }
    for (const [transfer, token] of [
      [7, "Secret"],
      [7, "secret2"],
      [7, undefined],
      [8, "secret"],
      [undefined, "secret"],
    ] as const) {
      assert.throws(() => routes.find(holder("CN=b"), transfer, token), {
        code: "unknown-transfer",
        fatal: true,
      });
    }
    close();
    assert.throws(() => routes.find(holder("CN=b"), 7, "secret"), { code: "unknown-transfer" });
  });
});

describe("an undecided migration", () => {
  test("is asked for until there is an answer, or nobody wants to know", async () => {
    const clock = new ManualClock();
    let asked = 0;
    let over = false;
    const ask = async (): Promise<"runs"> => {
      asked += 1;
      if (asked < 3) throw new Error("out of reach");
      return "runs";
    };
    const answer = whatBecameOf({ ask, isOver: () => over, clock, log: silentLog });
    for (let round = 0; round < 3; round += 1) {
      clock.advance(2000);
      await turn();
    }
    assert.equal(await answer, "runs");
    over = true;
    const second = whatBecameOf({ ask, isOver: () => over, clock, log: silentLog });
    clock.advance(2000);
    assert.equal(await second, "unknown");
    assert.equal(asked, 3);
  });
});

describe("names of hosts", () => {
  const options = {
    configured: { b: "wss://192.0.2.2:7070/" },
    ownName: "a",
    selfUrl: "unix:/run/a.sock",
    credentials: undefined,
    key: undefined,
    boot: undefined as never,
    clock: new ManualClock(),
    log: silentLog,
  };
  const peers = new Peers({ ...options, ownUrl: () => "wss://127.0.0.1:7070" });

  test("are configured ones, the own one, and addresses", () => {
    assert.equal(peers.resolve("b"), "wss://192.0.2.2:7070");
    for (const own of ["a", undefined, "127.0.0.1:7070", "wss://127.0.0.1:7070/", "unix:/run/a.sock"]) {
      assert.equal(peers.resolve(own), "unix:/run/a.sock", "an agent reaches itself without the network");
    }
    assert.ok(peers.isSelf(peers.resolve("a")));
    assert.equal(peers.resolve("wss://c:1/"), "wss://c:1");
    assert.equal(peers.resolve("[::1]:1"), "wss://[::1]:1");
    for (const bad of ["c", "c:", "http://c:1", "constructor", "unix:/run/b.sock"]) {
      assert.throws(() => peers.resolve(bad), {
        code: "no-such-peer",
        message: /neither a configured peer \(b\) nor HOST:PORT/,
      });
    }
    const plain = new Peers({
      ...options,
      key: Buffer.from("k".repeat(16)),
      ownUrl: () => "ws://127.0.0.1:1",
    });
    assert.equal(plain.resolve("127.0.0.2:1"), "ws://127.0.0.2:1");
  });

  test("a host beyond this machine cannot dial back to loopback, and none to an agent without TCP", () => {
    assert.equal(peers.ownUrlFor("wss://127.0.0.2:1"), "wss://127.0.0.1:7070");
    assert.equal(peers.ownUrlFor("unix:/run/a.sock"), "unix:/run/a.sock");
    assert.throws(() => peers.requireReachableFrom("wss://192.0.2.2:7070"), {
      code: "no-such-peer",
      message: /listens on wss:\/\/127.0.0.1:7070 only/,
    });
    const local = new Peers({ ...options, ownUrl: () => undefined });
    assert.throws(() => local.ownUrlFor("wss://127.0.0.2:1"), {
      message: /on its unix socket only: set tls/,
    });
    assert.equal(local.ownUrlFor("unix:/run/a.sock"), "unix:/run/a.sock");
  });
});

describe("boot files from peers", () => {
  const scratch = mkdtempSync(join(tmpdir(), "ramet-uploads-"));
  after(() => rmSync(scratch, { recursive: true }));
  const content = Buffer.from("a kernel");
  const sha256 = createHash("sha256").update(content).digest("hex");

  function fakeSession(): { session: RpcServerSession; end: () => void } {
    const handlers: (() => void)[] = [];
    return {
      session: { onEnd: (handler: () => void) => handlers.push(handler) } as never,
      end: () => handlers.forEach((handler) => handler()),
    };
  }

  test("only what was asked for, from its start, as announced; then kept for a while", async () => {
    const clock = new ManualClock();
    const boot = await BootStore.open(scratch);
    const uploads = new BootUploads({ boot, clock, log: silentLog });
    const { session, end } = fakeSession();
    const put = (offset: number, bytes: Buffer, last: boolean) =>
      uploads.put({ sha256, offset, bytes, last }, session);
    await assert.rejects(put(0, content, true), { code: "bad-boot-file", message: /was not asked for/ });
    uploads.expect(session, { sha256, sizeBytes: content.length });
    await assert.rejects(put(4, content.subarray(4), true), { message: /from its start/ });
    await assert.rejects(put(0, Buffer.from("A kernel"), true), { message: /has the content of/ });
    assert.deepEqual(await put(0, content.subarray(0, 4), false), { nextOffset: 4 });
    assert.deepEqual(await put(0, content.subarray(0, 4), false), { nextOffset: 4 }, "it may begin anew");
    assert.deepEqual(await put(4, content.subarray(4), true), { nextOffset: 8 });
    await boot.collect(new Set());
    assert.deepEqual(readdirSync(scratch), [sha256]);
    assert.equal(await uploads.keep(sha256), true);
    clock.advance(61_000);
    await boot.collect(new Set());
    assert.deepEqual(readdirSync(scratch), []);
    assert.equal(await uploads.keep(sha256), false);

    uploads.expect(session, { sha256, sizeBytes: content.length });
    await put(0, content.subarray(0, 4), false);
    end();
    await eventually("what a lost connection had begun is removed", () => readdirSync(scratch).length === 0);
    uploads.close();
    assert.equal(clock.pending, 0);
  });
});
