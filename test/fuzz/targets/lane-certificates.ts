import assert from "node:assert/strict";
import { LaneError } from "../../../src/lane/errors.js";
import { readRefusal } from "../../../src/lane/gate.js";
import { RevokedSerials, splitLists } from "../../../src/lane/revocation.js";
import { orRefusal, type Target } from "../engine/target.js";

const allocationBytes = (inputBytes: number) => 1024 * 1024 + inputBytes * 512;

/** A value in DER with a short or a long length (X.690, 8.1.3). */
function der(tag: number, ...content: Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  const long = body.length > 127;
  return Buffer.concat([
    Buffer.of(tag, ...(long ? [0x82, body.length >> 8, body.length & 0xff] : [body.length])),
    body,
  ]);
}

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const UTC_TIME = 0x17;

/** A revocation list without a signature that anybody would believe (RFC 5280, 5.1). */
function revocationList(serials: readonly number[]): Buffer {
  const algorithm = der(SEQUENCE, der(0x06, Buffer.of(0x2b, 0x65, 0x70)));
  const issuer = der(
    SEQUENCE,
    der(0x31, der(SEQUENCE, der(0x06, Buffer.of(0x55, 4, 3)), der(0x0c, Buffer.from("ca")))),
  );
  const time = der(UTC_TIME, Buffer.from("261121000000Z"));
  const revoked = serials.map((serial) => der(SEQUENCE, der(INTEGER, Buffer.of(serial)), time));
  const body = der(
    SEQUENCE,
    der(INTEGER, Buffer.of(1)),
    algorithm,
    issuer,
    time,
    time,
    der(SEQUENCE, ...revoked),
  );
  return der(SEQUENCE, body, algorithm, der(0x03, Buffer.alloc(65)));
}

/** Certificate revocation lists, as DER behind their base64. */
export const laneRevocation: Target = {
  name: "lane-revocation",
  covers: ["src/lane/revocation.ts", "src/lane/der.ts"],
  format: "bytes",
  maxInputBytes: 4096,
  allocationBytes,
  *seeds() {
    yield revocationList([]);
    yield revocationList([5]);
    yield revocationList(Array.from({ length: 40 }, (_, index) => index));
  },
  run(input) {
    const pem = `-----BEGIN X509 CRL-----\n${input.toString("base64")}\n-----END X509 CRL-----\n`;
    return orRefusal(
      LaneError,
      () => `revoked ${Math.min(3, RevokedSerials.fromPem(splitLists(pem)).count)}`,
    );
  },
};

/** The header by which a listener says why a certificate is not let in. */
export const laneRefusal: Target = {
  name: "lane-refusal",
  covers: ["src/lane/gate.ts"],
  format: "text",
  maxInputBytes: 2048,
  allocationBytes,
  *seeds() {
    yield Buffer.from(encodeURIComponent("certificate-missing: no certificate was shown"));
    yield Buffer.from(encodeURIComponent("refused: \u001b[31m\u00e9"));
    yield Buffer.from("%e9%");
  },
  run(input) {
    const refusal = readRefusal({ "ramet-refusal": input.toString("utf8") });
    if (refusal === undefined) return "nothing";
    assert.doesNotMatch(refusal.message, /[\u0000-\u001f\u007f-\u009f]/u);
    return refusal.code;
  },
};
