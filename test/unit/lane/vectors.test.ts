import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { EndVector, HandshakeVector } from "../../../proto/vectors/schema.js";
import { decodeEnd, encodeEnd } from "../../../src/lane/end.js";
import { clientMessage, decodeMessage } from "../../../src/lane/messages.js";
import { makeProof, proofIsRight } from "../../../src/lane/proof.js";

function read<Vector>(name: string): Vector[] {
  const url = new URL(`../../../proto/vectors/v1/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Vector[];
}

const bytes = (hex: string) => Buffer.from(hex, "hex");

for (const vector of read<HandshakeVector>("handshake")) {
  test(`vector: handshake, ${vector.name}`, () => {
    const helloBytes = bytes(vector.helloBytes);
    const hello = decodeMessage(clientMessage.hello, helloBytes);
    const { nonce, type, versions, features, ...fields } = hello;
    assert.deepEqual({ type, versions, features }, { type: "hello", versions: [1], features: ["lz4"] });
    assert.deepEqual(fields, vector.hello);
    assert.deepEqual(Buffer.from(nonce), bytes(vector.clientNonce));
    const key = vector.key === "" ? undefined : bytes(vector.key);
    const challenge = { ...vector.challenge, nonce: bytes(vector.challenge.nonce) };
    const transcript = { helloBytes, clientNonce: nonce, challenge };
    assert.equal(makeProof("server", key, transcript).toString("hex"), vector.serverProof);
    assert.equal(makeProof("client", key, transcript).toString("hex"), vector.clientProof);
    assert.ok(proofIsRight("client", bytes(vector.clientProof), key, transcript));
    if (key !== undefined) assert.ok(!proofIsRight("client", bytes(vector.serverProof), key, transcript));
  });
}

for (const vector of read<EndVector>("ends")) {
  test(`vector: end, ${vector.end.code}`, () => {
    const { closeCode, reason } = encodeEnd(vector.end);
    assert.equal(closeCode, vector.closeCode);
    assert.equal(reason.toString("hex"), vector.reason);
    const message = vector.read ?? vector.end.message;
    assert.deepEqual(decodeEnd(closeCode, bytes(vector.reason)), { ...vector.end, message });
  });
}

test("a close that is not of this protocol may be dialled again, and its text is not repeated", () => {
  for (const code of [1000, 1001, 1006, 1011, 4099]) {
    const end = decodeEnd(code, Buffer.from("evil: \u001b[2J"));
    assert.equal(end.code, "closed");
    assert.equal(end.fatal, false);
    assert.ok(!end.message.includes("evil"));
  }
  assert.equal(decodeEnd(1009, Buffer.alloc(0)).code, "too-large");
  assert.equal(decodeEnd(1009, Buffer.alloc(0)).fatal, true);
});

test("control characters in a reason do not reach the log or the terminal", () => {
  assert.deepEqual(decodeEnd(4001, Buffer.from("bad-run: \u001b[2J\nx")), {
    code: "bad-run",
    message: " [2J x",
    fatal: true,
  });
  const strange = decodeEnd(4000, Buffer.from("no colon"));
  assert.deepEqual(strange, { code: "closed", message: "the other side gave no reason", fatal: false });
});
