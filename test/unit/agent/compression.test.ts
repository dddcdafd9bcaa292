import assert from "node:assert/strict";
import { test } from "node:test";
import { compressionFor, isTrusted, LearnedCompression } from "../../../src/agent/transfers/compression.js";

const MEASURED = { rawBytesPerSecond: 1, lz4BytesPerSecond: 2, ratio: 3, lz4UsPerMib: 4 };
const FAR = "wss://far:7070";

test("auto begins as the latest transfer to the same agent found better", () => {
  const learned = new LearnedCompression();
  assert.equal(compressionFor("auto", FAR, learned).compress, true);
  assert.equal(compressionFor("auto", "ws://127.0.0.1:7070", learned).compress, false);
  learned.note(FAR, { choice: "auto", now: "none", measured: MEASURED });
  assert.equal(compressionFor("auto", FAR, learned).compress, false);
  assert.equal(compressionFor("auto", "wss://other:7070", learned).compress, true);
  learned.note(FAR, { choice: "auto", now: "lz4" });
  assert.equal(learned.of(FAR), false, "what was not measured says nothing");
  assert.deepEqual(compressionFor("lz4", FAR, learned), { compress: true, compression: "lz4" });
});

test("auto looks at once only where it begins with what nobody has found out", () => {
  const learned = new LearnedCompression();
  const near = "ws://127.0.0.1:7070";
  assert.equal(isTrusted(FAR, true, learned), false);
  assert.equal(isTrusted(FAR, false, learned), false);
  assert.equal(isTrusted(near, false, learned), true);
  assert.equal(isTrusted(near, true, learned), false);
  for (const url of [FAR, near]) learned.note(url, { choice: "auto", now: "lz4", measured: MEASURED });
  assert.equal(isTrusted(FAR, true, learned), true);
  assert.equal(isTrusted(near, true, learned), true);
  assert.equal(isTrusted(near, false, learned), false);
});

test("it remembers a bounded number of agents, those heard of last", () => {
  const learned = new LearnedCompression();
  for (let index = 0; index < 300; index += 1) {
    learned.note(FAR, { choice: "auto", now: "lz4", measured: MEASURED });
    learned.note(`wss://${index}:1`, { choice: "auto", now: "lz4", measured: MEASURED });
  }
  assert.equal(learned.of("wss://0:1"), undefined);
  assert.equal(learned.of("wss://299:1"), true);
  assert.equal(learned.of(FAR), true);
});
