import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "../../../src/base/index.js";
import { FrameSplitter } from "../../../src/lane/frame-splitter.js";

const MAX_BYTES = 200_000;
const BINARY = 0x82;
const PING = 0x89;

/** A frame as a server sends it, or one that it must not. */
function frame(first: number, body: Uint8Array, { masked = false, asLong = false } = {}): Buffer {
  const length = body.length;
  const head =
    length < 126 && !asLong
      ? Buffer.from([first, length])
      : length < 65_536 && !asLong
        ? Buffer.from([first, 126, length >>> 8, length & 255])
        : Buffer.concat([
            Buffer.from([first, 127, 0, 0, 0, 0]),
            Buffer.from(Uint32Array.of(length).buffer).reverse(),
          ]);
  if (!masked) return Buffer.concat([head, body]);
  head[1] = (head[1] as number) | 0x80;
  return Buffer.concat([head, Buffer.alloc(4), body]);
}

/** Splits a stream that arrives in pieces of sizes as `nextSize` says. */
function play(stream: Buffer, nextSize: () => number): { taken: Buffer[]; passed: Buffer } {
  const taken: Buffer[] = [];
  const passed: Buffer[] = [];
  const splitter = new FrameSplitter({
    maxMessageBytes: MAX_BYTES,
    pass: (bytes) => passed.push(Buffer.from(bytes)),
  });
  splitter.divert((message) => taken.push(Buffer.from(message)));
  for (let at = 0; at < stream.length;) {
    const { space } = splitter;
    assert.ok(space.length > 0);
    const length = stream.copy(space, 0, at, at + nextSize());
    // What lies there is not to be taken for read.
    space.fill(0xee, length);
    at += length;
    splitter.filled(length);
  }
  return { taken, passed: Buffer.concat(passed) };
}

test("however a stream is cut, binary messages are taken out whole and the rest is passed on", () => {
  const random = new SeededRandom(7);
  for (let round = 0; round < 60; round += 1) {
    const messages: Buffer[] = [];
    const others: Buffer[] = [];
    const parts: Buffer[] = [];
    for (let count = random.below(12); count >= 0; count -= 1) {
      const body = Buffer.alloc(
        random.pick([0, 1, 125, 126, 4116, 65_535, 65_536, 66_000, MAX_BYTES]),
        1 + random.below(255),
      );
      if (random.chance(0.3)) {
        const other = frame(random.pick([PING, 0x8a, 0x81, 0x02, 0x80]), body.subarray(0, 125), {
          masked: random.chance(0.2),
        });
        others.push(other);
        parts.push(other);
      } else {
        messages.push(body);
        parts.push(frame(BINARY, body, { asLong: random.chance(0.1) }));
      }
    }
    const most = random.pick([1, 2, 3, 14, 1000, 70_000]);
    if (most < 14 && messages.some(({ length }) => length > 5000)) continue;
    const { taken, passed } = play(Buffer.concat(parts), () => 1 + random.below(most));
    assert.equal(taken.length, messages.length);
    for (const [index, message] of messages.entries()) assert.ok(message.equals(taken[index] as Buffer));
    assert.ok(passed.equals(Buffer.concat(others)));
  }
});

test("a message that is too long, and all that follows, is left to the other implementation", () => {
  const long = frame(BINARY, Buffer.alloc(MAX_BYTES + 1));
  const stream = Buffer.concat([frame(BINARY, Buffer.from("one")), long, frame(BINARY, Buffer.from("two"))]);
  for (const size of [1, 5, 13, 60_000, stream.length]) {
    const { taken, passed } = play(stream, () => size);
    assert.deepEqual(taken.map(String), ["one"]);
    assert.ok(passed.equals(stream.subarray(5)), `in pieces of ${size}`);
  }
});

test("a length that no machine could hold is not waited for", () => {
  const stream = Buffer.concat([Buffer.from([BINARY, 127]), Buffer.alloc(8, 0xff), Buffer.from("rest")]);
  const { taken, passed } = play(stream, () => 3);
  assert.deepEqual(taken, []);
  assert.ok(passed.equals(stream));
});
