import assert from "node:assert/strict";
import { test } from "node:test";
import { Bitmap, SeededRandom } from "../../../src/base/index.js";

/** A bitmap and a plain array that is treated alike. */
function pair(length: number, random: SeededRandom) {
  const bits = new Bitmap(length);
  const plain = Array.from({ length }, () => false);
  for (let turn = 0; turn < 6; turn += 1) {
    const first = random.below(length);
    const count = random.below(length - first + 1);
    const on = random.chance(0.5);
    const changed = plain.slice(first, first + count).filter((bit) => bit !== on).length;
    assert.equal(on ? bits.setRun(first, count) : bits.clearRun(first, count), changed);
    plain.fill(on, first, first + count);
  }
  return { bits, plain };
}

test("runs of bits are set, cleared, counted and searched as single bits are", () => {
  const random = new SeededRandom(1);
  for (let turn = 0; turn < 300; turn += 1) {
    const length = 1 + random.below(200);
    const { bits, plain } = pair(length, random);
    const other = pair(length, random);
    assert.equal(bits.count, plain.filter(Boolean).length);
    const from = random.below(length + 1);
    assert.deepEqual(
      plain.map((_, index) => bits.has(index)),
      plain,
    );
    assert.equal(bits.nextSet(from), plain.indexOf(true, from));
    assert.equal(bits.nextClear(from), plain.indexOf(false, from));
    const past = random.below(length + 1);
    assert.equal(bits.nextSet(from, past), plain.slice(0, past).indexOf(true, from));
    assert.equal(bits.nextClear(from, past), plain.slice(0, past).indexOf(false, from));
    const byte = 8 * random.below(1 + (length >>> 3));
    const again = new Bitmap(length);
    again.setBytes(byte, bits.bytes(byte, length - byte));
    assert.deepEqual(
      plain.map((_, index) => again.has(index)),
      plain.map((bit, index) => bit && index >= byte),
    );
    const outside = plain.findIndex((bit, index) => index >= from && bit && other.plain[index] === false);
    assert.equal(bits.nextSetOutside(other.bits, from), outside);
    assert.equal(
      [...bits.runs()].reduce((sum, run) => sum + run.count, 0),
      bits.count,
    );
  }
});
