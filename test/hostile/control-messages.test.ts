import assert from "node:assert/strict";
import { test } from "node:test";
import { Packr } from "msgpackr";
import { LOCAL_IDENTITY, MAX_CONTROL_BYTES, SeededRandom, silentLog } from "../../src/base/index.js";
import {
  ControlError,
  decodeMessage,
  encodeMessage,
  MAX_CLIENT_REQUEST_BYTES,
  RpcServerSession,
} from "../../src/control/index.js";
import { MAX_DEPTH } from "../../src/control/limits.js";
import { channelPair, clientHandlers, ManualClock } from "../unit/control/support.js";

const LIMITS = { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 };

function refused(bytes: Uint8Array, rule: RegExp, code = "bad-message"): void {
  assert.throws(
    () => decodeMessage(bytes, LIMITS),
    (error: unknown) => {
      assert.ok(error instanceof ControlError, String(error));
      assert.equal(error.code, code);
      assert.match(error.message, rule);
      return true;
    },
  );
}

const bytesOf = (...bytes: number[]) => Uint8Array.from(bytes);
/** A map with the one key "a", and what follows as its value. */
const valueOf = (...bytes: number[]) => bytesOf(0x81, 0xa1, 0x61, ...bytes);

test("what is no map, or more than one value, is refused", () => {
  refused(bytesOf(), /complete/);
  refused(bytesOf(0x01), /is a map/);
  refused(bytesOf(0x90), /is a map/);
  refused(bytesOf(0xc4, 0x00), /is a map/);
  refused(bytesOf(0xc0), /is a map/);
  refused(bytesOf(0x80, 0x80), /nothing after/);
});

test("every extension type is refused, so that no record, date, error or expression is built", () => {
  for (const token of [0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8]) {
    refused(valueOf(token, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x01), /extension/);
  }
  const rich = new Packr({ useRecords: false, moreTypes: true, structuredClone: true });
  for (const value of [new Date(0), /a+/, new Error("x"), new Set([1]), new Float64Array(4)]) {
    refused(rich.pack({ a: value }), /extension/);
  }
  refused(new Packr({ useRecords: true }).pack({ a: 1 }), /extension/);
});

test("keys that are no strings are refused", () => {
  refused(bytesOf(0x81, 0x01, 0x01), /strings as keys/);
  refused(bytesOf(0x81, 0x90, 0x01), /strings as keys/);
  refused(bytesOf(0x81, 0xc4, 0x01, 0x61, 0x01), /strings as keys/);
});

test("__proto__ becomes no prototype", () => {
  const bytes = encodeMessage(JSON.parse('{"__proto__": {"polluted": true}}') as object);
  const message = decodeMessage(bytes, LIMITS);
  assert.equal(Object.getPrototypeOf(message), Object.prototype);
  assert.equal((message as { polluted?: boolean }).polluted, undefined);
});

test("lengths beyond the end are refused before anything is made of them", () => {
  for (const head of [
    [0xdb, 0xff, 0xff, 0xff, 0xff],
    [0xc6, 0xff, 0xff, 0xff, 0xff],
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    [0xdf, 0xff, 0xff, 0xff, 0xff],
    [0xda, 0xff],
    [0xcf, 0x00],
    [0xbf, 0x61],
  ]) {
    refused(valueOf(...head), /complete|fewer values/);
  }
});

test("a message of nothing but empty maps is refused by its count of values", () => {
  const bytes = new Uint8Array(MAX_CONTROL_BYTES).fill(0x80);
  bytes.set([0x81, 0xa1, 0x61, 0xdd, 0x00, 0x7f, 0xff, 0xf8]);
  refused(bytes, /fewer values/);
});

test("deep nesting is refused without a deep stack", () => {
  refused(new Uint8Array(1_000_000).fill(0x91), /less deeply/);
  const nested = (depth: number) => valueOf(...Array<number>(depth - 1).fill(0x91), 0x01);
  assert.ok(decodeMessage(nested(MAX_DEPTH), LIMITS));
  refused(nested(MAX_DEPTH + 1), /less deeply/);
});

test("a message over its limit is refused unread", () => {
  refused(new Uint8Array(MAX_CONTROL_BYTES + 1), /over the limit/, "too-large");
  assert.throws(() => encodeMessage({ a: new Uint8Array(MAX_CONTROL_BYTES) }), { code: "too-large" });
});

test("every cut and every single changed byte of a good message is decoded or refused, never worse", () => {
  const good = encodeMessage({
    id: 1,
    method: "guest.run",
    params: {
      name: "web",
      n: 5e12,
      bytes: new Uint8Array(20),
      list: [1, -1, 70000, 1.5, null, true],
      text: "é".repeat(40),
    },
  });
  for (let length = 0; length < good.length; length += 1) refused(good.subarray(0, length), /./);
  const random = new SeededRandom(7);
  for (let index = 0; index < good.length; index += 1) {
    for (let turn = 0; turn < 16; turn += 1) {
      const bytes = Uint8Array.from(good);
      bytes[index] = random.below(256);
      decodesOrRefuses(bytes);
    }
  }
});

test("random bytes are decoded or refused, never worse", () => {
  const random = new SeededRandom(11);
  for (let turn = 0; turn < 20_000; turn += 1) {
    decodesOrRefuses(Uint8Array.from({ length: 1 + random.below(64) }, () => random.below(256)));
  }
});

function decodesOrRefuses(bytes: Uint8Array): void {
  try {
    const message = decodeMessage(bytes, LIMITS);
    assert.equal(typeof message, "object");
  } catch (error) {
    assert.ok(error instanceof ControlError, `${Buffer.from(bytes).toString("hex")}: ${String(error)}`);
  }
}

test("a session ends a connection that speaks no control messages, with the reason", () => {
  for (const bytes of [
    bytesOf(0xff),
    bytesOf(0x80),
    encodeMessage({ id: -1, method: "guest.list" }),
    encodeMessage({ id: 1, method: 5 }),
    encodeMessage({ id: 1, method: "x".repeat(65) }),
    encodeMessage({ id: 1, method: "guest.list", params: [] }),
    encodeMessage({ id: 1, method: "guest.list", extra: 1 }),
  ]) {
    const { near, far } = channelPair();
    new RpcServerSession(far, {
      identity: LOCAL_IDENTITY,
      role: "client",
      handlers: clientHandlers({}),
      clock: new ManualClock(),
      log: silentLog,
    });
    near.attach({ onFrame: () => assert.fail("no reply is due"), onEnd: () => {} });
    near.send(bytes);
    assert.equal(near.ended?.code, "bad-message");
  }
});

test("a client's request is held to the size of commands", () => {
  const { near, far } = channelPair();
  new RpcServerSession(far, {
    identity: LOCAL_IDENTITY,
    role: "client",
    handlers: clientHandlers({}),
    clock: new ManualClock(),
    log: silentLog,
  });
  near.attach({ onFrame: () => {}, onEnd: () => {} });
  const data = new Uint8Array(MAX_CLIENT_REQUEST_BYTES);
  near.send(encodeMessage({ id: 1, method: "guest.console.input", params: { console: 1, data } }));
  assert.equal(near.ended?.code, "too-large");
});
