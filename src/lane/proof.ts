import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { ChallengeMessage } from "./messages.js";

/** What both sides know when a proof is made: enough that it is good for this connection only. */
export interface Transcript {
  /** The hello exactly as it was sent; it contains the client's nonce. */
  helloBytes: Uint8Array;
  clientNonce: Uint8Array;
  challenge: Pick<ChallengeMessage, "version" | "features" | "nonce">;
}

/**
 * A side's proof that it holds the key: HMAC-SHA256 (RFC 2104) over the side's label, both nonces, the hello and what the
 * challenge settled, so that neither can be changed on the way, replayed, or sent back to its maker. Empty without a key.
 */
export function makeProof(
  side: "client" | "server",
  key: Buffer | undefined,
  transcript: Transcript,
): Buffer {
  if (key === undefined) return Buffer.alloc(0);
  return createHmac("sha256", key)
    .update(`ramet v1 ${side}\0`, "latin1")
    .update(transcript.clientNonce)
    .update(transcript.challenge.nonce)
    .update(createHash("sha256").update(transcript.helloBytes).digest())
    .update(createHash("sha256").update(challengeFields(transcript.challenge)).digest())
    .digest();
}

/** Compares in a time that does not depend on the bytes. Without a key, only the empty proof is right. */
export function proofIsRight(
  side: "client" | "server",
  given: Uint8Array,
  key: Buffer | undefined,
  transcript: Transcript,
): boolean {
  const right = makeProof(side, key, transcript);
  return given.length === right.length && timingSafeEqual(given, right);
}

/** u16 version, u8 number of features, and per feature u8 length and UTF-8. MessagePack may write one value in many ways; this has one. */
function challengeFields(challenge: Transcript["challenge"]): Buffer {
  const head = Buffer.alloc(3);
  head.writeUInt16BE(challenge.version, 0);
  head.writeUInt8(challenge.features.length, 2);
  const parts: Buffer[] = [head];
  for (const feature of challenge.features) {
    const name = Buffer.from(feature, "utf8");
    parts.push(Buffer.from([name.length]), name);
  }
  return Buffer.concat(parts);
}
