import assert from "node:assert/strict";
import { test } from "node:test";
import { relaysOf } from "../../../src/agent/transfers/link-relays.js";

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
