import assert from "node:assert/strict";
import { test } from "node:test";
import type { Services } from "../../../src/agent/services.js";
import { ChildRelays } from "../../../src/agent/transfers/child-relays.js";
import { LaneRoutes, type RelayTaker } from "../../../src/agent/transfers/lane-routes.js";
import { relaysOf } from "../../../src/agent/transfers/link-relays.js";
import { SeededRandom, silentLog, type Identity } from "../../../src/base/index.js";
import { MAX_CHILDREN } from "../../../src/control/index.js";
import { ChildRelay } from "../../../src/transfer/child-relay.js";
import type { ChildMachine } from "../../../src/transfer/index.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const isSelf = (url: string): boolean => url === "unix:/here";

test("in a chain each host is fed by the one before it, in a tree by that of half its number", () => {
  const urls = ["wss://a", "wss://b", "wss://c", "wss://d", "wss://e"];
  assert.deepEqual(relaysOf(urls, "chain", isSelf), [undefined, 0, 1, 2, 3]);
  assert.deepEqual(relaysOf(urls, "tree", isSelf), [undefined, 0, 0, 1, 1]);
  assert.deepEqual(relaysOf(urls, "none", isSelf), Array.from({ length: 5 }));
});

test("further children of a host are fed by its first, and those of the parent's host by nobody", () => {
  const urls = ["unix:/here", "wss://a", "wss://b", "unix:/here", "wss://a", "wss://b", "wss://a"];
  assert.deepEqual(relaysOf(urls, "chain", isSelf), [undefined, undefined, 1, undefined, 1, 2, 1]);
});

test("a single child has nobody to pass on to it", () => {
  assert.deepEqual(relaysOf(["wss://a"], "chain", isSelf), [undefined]);
});

const here = (name: string): Identity => ({ kind: "certificate", name, roles: ["peer"] });
const TOKEN = "t".repeat(32);

/** A child that passes on, without the rest of its machine, and the lanes its agent lets in. */
function passingOn() {
  const relays = new LaneRoutes<RelayTaker>({ isWhole: () => true });
  const relay = new ChildRelay({
    transfer: 7,
    pageCount: 16,
    clock: new Scheduler(new SeededRandom(1)),
    log: silentLog,
    take: () => {},
    onFed: () => {},
    onRoom: () => {},
    onPassing: () => {},
  });
  const child = new ChildRelays({ relays } as Services, { relay } as ChildMachine, 7);
  return { relays, relay, child };
}

test("only the named holder with the token is let in to be passed on to, and nobody once that is over", () => {
  const { relays, relay, child } = passingOn();
  child.passTo({ transfer: 8, token: TOKEN, holder: { kind: "certificate", name: "CN=c" } });
  assert.doesNotThrow(() => relays.find(here("CN=c"), 8, TOKEN));
  for (const [who, transfer, token] of [
    ["CN=d", 8, TOKEN],
    ["CN=c", 7, TOKEN],
    ["CN=c", 8, "u".repeat(32)],
    ["CN=c", 8, undefined],
  ] as const)
    assert.throws(() => relays.find(here(who), transfer, token), { code: "unknown-transfer", fatal: true });
  relay.close({ code: "cancelled", message: "the child was cancelled", fatal: true });
  assert.equal(relays.has(8), false);
  child.passTo({ transfer: 9, token: TOKEN, holder: { kind: "certificate", name: "CN=c" } });
  assert.equal(relays.has(9), false, "a child that is over passes nothing on");
});

test("a child passes on to as many others as a fork can have, and no more", () => {
  const { child } = passingOn();
  const holder = { kind: "certificate" as const, name: "CN=c" };
  for (let transfer = 100; transfer < 100 + MAX_CHILDREN; transfer += 1)
    child.passTo({ transfer, token: TOKEN, holder });
  assert.throws(() => child.passTo({ transfer: 99, token: TOKEN, holder }), { code: "busy" });
});
