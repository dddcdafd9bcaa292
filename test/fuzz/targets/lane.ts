import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { EndVector, HandshakeVector } from "../../../proto/vectors/schema.js";
import { decodeEnd, encodeEnd } from "../../../src/lane/end.js";
import { LaneError } from "../../../src/lane/errors.js";
import { ClientHandshake, refusedMessage, ServerHandshake } from "../../../src/lane/handshake.js";
import { encodeMessage, NONCE_BYTES } from "../../../src/lane/messages.js";
import { ROUTES, type Route } from "../../../src/lane/purpose.js";
import { refusalOf, type Target } from "../engine/target.js";

const KEY = Buffer.from("a key of thirty-two bytes, or so");
const NONCE = Buffer.alloc(NONCE_BYTES, 7);
const SMALL_BYTES = 512 * 1024;

function readVectors<Vector>(name: string): Vector[] {
  const url = new URL(`../../../proto/vectors/v1/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Vector[];
}

const allocationBytes = (inputBytes: number) => SMALL_BYTES + inputBytes * 256;

/** A hello, and the proof after it. The first byte of an input chooses route and key. */
export const laneServer: Target = {
  name: "lane-server",
  covers: ["src/lane/handshake.ts", "src/lane/messages.ts", "src/lane/proof.ts"],
  format: "bytes",
  maxInputBytes: 5000,
  allocationBytes,
  *seeds() {
    for (const { helloBytes } of readVectors<HandshakeVector>("handshake")) {
      for (let choice = 0; choice < 4; choice += 1) {
        yield Buffer.concat([Buffer.of(choice), Buffer.from(helloBytes, "hex")]);
      }
    }
  },
  run(input) {
    const choice = input[0] ?? 0;
    const route = ROUTES[choice & 1] as Route;
    const key = (choice & 2) === 0 ? undefined : KEY;
    let authorised = 0;
    const handshake = new ServerHandshake({ route, key, nonce: NONCE, authorise: () => (authorised += 1) });
    try {
      const { reply, agreed } = handshake.onMessage(input.subarray(1));
      assert.ok(reply !== undefined && agreed === undefined, "nothing is agreed after the hello alone");
      // Of a random proof only the empty one can be right, and only without a key.
      const proof = encodeMessage({ type: "proof", proof: Buffer.alloc((choice & 4) === 0 ? 0 : 32) });
      const end = handshake.onMessage(proof);
      assert.ok(
        key === undefined && authorised === 1 && end.agreed !== undefined,
        "nobody gets in without the key",
      );
      return `agreed ${end.agreed.purpose} ${end.agreed.role}`;
    } catch (error) {
      const code = refusalOf(LaneError, error);
      assert.equal(authorised, 0, "who is refused was not let in before");
      refusedMessage(error as LaneError);
      return code;
    }
  },
};

/** Challenge and end, as a listener may lie to a client. */
export const laneClient: Target = {
  name: "lane-client",
  covers: ["src/lane/handshake.ts", "src/lane/messages.ts", "src/lane/proof.ts"],
  format: "msgpack",
  maxInputBytes: 5000,
  allocationBytes,
  *seeds() {
    const nonce = NONCE;
    const proof = Buffer.alloc(0);
    yield encodeMessage({ type: "challenge", version: 1, features: ["lz4"], nonce, proof });
    yield encodeMessage({ type: "challenge", version: 1, features: [], nonce, proof: Buffer.alloc(32) });
    yield encodeMessage({ type: "refused", code: "unauthenticated", message: "no", fatal: true });
    yield encodeMessage({ type: "welcome" });
  },
  run(input) {
    const outcomes: string[] = [];
    for (const key of [undefined, KEY]) {
      const fields = { purpose: "control", role: "client" } as const;
      const handshake = new ClientHandshake({ fields, key, nonce: NONCE });
      try {
        const { reply, agreed } = handshake.onMessage(input);
        assert.ok(key === undefined && reply !== undefined && agreed === undefined);
        const end = handshake.onMessage(input);
        outcomes.push(end.agreed === undefined ? "challenged" : "agreed");
      } catch (error) {
        outcomes.push(refusalOf(LaneError, error));
      }
    }
    return outcomes.join(" ");
  },
};

/** Close code and reason, as the other side says them. */
export const laneEnd: Target = {
  name: "lane-end",
  covers: ["src/lane/end.ts"],
  format: "bytes",
  maxInputBytes: 127,
  allocationBytes,
  *seeds() {
    for (const { closeCode, reason } of readVectors<EndVector>("ends")) {
      const head = Buffer.alloc(2);
      head.writeUInt16BE(closeCode);
      yield Buffer.concat([head, Buffer.from(reason, "hex")]);
    }
  },
  run(input) {
    const closeCode = input.length < 2 ? 1005 : input.readUInt16BE(0);
    const end = decodeEnd(closeCode, input.subarray(2));
    assert.match(end.code, /^[A-Za-z][A-Za-z0-9_-]{0,39}$/);
    assert.doesNotMatch(end.message, /[\u0000-\u001f\u007f-\u009f]/u);
    const again = encodeEnd(end);
    assert.ok(again.reason.length <= 123);
    const read = decodeEnd(again.closeCode, again.reason);
    assert.equal(read.code, end.code);
    assert.equal(read.fatal, end.fatal);
    assert.ok(end.message.startsWith(read.message), "what is cut is cut at the end, between two characters");
    return `${end.fatal} ${end.code.length < 20}`;
  },
};
