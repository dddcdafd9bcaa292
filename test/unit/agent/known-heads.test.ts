import assert from "node:assert/strict";
import { test } from "node:test";
import { digestOf, KnownHeads } from "../../../src/agent/transfers/known-heads.js";

const headOf = (number: number) => new Uint8Array(100).fill(number);

test("a head is asked for once, and the ones used longest ago are forgotten", () => {
  const heads = new KnownHeads();
  const first = headOf(1);
  const sha256 = digestOf(first);
  assert.equal(heads.take({ sha256 }), undefined);
  assert.deepEqual(heads.take({ sha256, deviceState: first }), first);
  assert.deepEqual(heads.take({ sha256 }), first);
  for (let number = 2; number < 9; number += 1) {
    const deviceState = headOf(number);
    heads.take({ sha256: digestOf(deviceState), deviceState });
  }
  assert.deepEqual(heads.take({ sha256 }), first);
  const ninth = headOf(9);
  heads.take({ sha256: digestOf(ninth), deviceState: ninth });
  assert.equal(heads.take({ sha256: digestOf(headOf(2)) }), undefined);
  assert.deepEqual(heads.take({ sha256 }), first);
});

test("bytes that are not what their digest says are refused, and huge ones are not kept", () => {
  const heads = new KnownHeads();
  assert.throws(() => heads.take({ sha256: digestOf(headOf(1)), deviceState: headOf(2) }), {
    code: "bad-request",
  });
  const huge = new Uint8Array(5 * 1024 * 1024);
  assert.deepEqual(heads.take({ sha256: digestOf(huge), deviceState: huge }), huge);
  assert.equal(heads.take({ sha256: digestOf(huge) }), undefined);
});
