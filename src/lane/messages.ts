import { Packr, Unpackr } from "msgpackr";
import { z } from "zod";
import { assert, messageOf } from "../base/index.js";
import { LaneError } from "./errors.js";
import { MAX_HANDSHAKE_MESSAGE_BYTES } from "./limits.js";
import { PURPOSES, ROLES } from "./purpose.js";

/** Bytes of a nonce and of a proof that is not empty. */
export const NONCE_BYTES = 32;
export const PROOF_BYTES = 32;

const MAX_U32 = 0xffffffff;
const u32 = z.number().int().min(0).max(MAX_U32);
const nonce = bytesOf((length) => length === NONCE_BYTES, `is ${NONCE_BYTES} bytes long`);
const proof = bytesOf(
  (length) => length === 0 || length === PROOF_BYTES,
  `is empty or ${PROOF_BYTES} bytes long`,
);
const features = z.array(z.string().min(1).max(32)).max(16);
const version = z.number().int().min(1).max(0xffff);

// Fields that are not known here are ignored: a later version may add some.
const hello = z.object({
  type: z.literal("hello"),
  versions: z.array(version).min(1).max(16),
  features,
  purpose: z.enum(PURPOSES),
  role: z.enum(ROLES),
  transfer: u32.optional(),
  epoch: u32.min(1).optional(),
  token: z.string().max(256).optional(),
  nonce,
});
const challenge = z.object({ type: z.literal("challenge"), version, features, nonce, proof });
const clientProof = z.object({ type: z.literal("proof"), proof });
const welcome = z.object({ type: z.literal("welcome") });
const refused = z.object({
  type: z.literal("refused"),
  code: z.string().max(64),
  message: z.string().max(1024),
  fatal: z.boolean(),
});

export const clientMessage = { hello, proof: clientProof };
export const serverMessage = { challenge: z.union([challenge, refused]), end: z.union([welcome, refused]) };

export type HelloMessage = z.infer<typeof hello>;
export type ChallengeMessage = z.infer<typeof challenge>;
export type HandshakeMessage =
  | HelloMessage
  | ChallengeMessage
  | z.infer<typeof clientProof>
  | z.infer<typeof welcome>
  | z.infer<typeof refused>;

// Plain MessagePack, as on the control lane: no records and no extension types.
const packr = new Packr({ useRecords: false, moreTypes: false, structuredClone: false });
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  moreTypes: false,
  structuredClone: false,
});

/** Writes a handshake message. Fields that are undefined are left out. */
export function encodeMessage(message: HandshakeMessage): Buffer {
  const fields = Object.entries(message).filter(([, value]) => value !== undefined);
  const bytes = packr.pack(Object.fromEntries(fields));
  assert(
    bytes.length <= MAX_HANDSHAKE_MESSAGE_BYTES,
    `a handshake message of ${bytes.length} bytes is too long`,
  );
  return Buffer.from(bytes);
}

/**
 * Reads a handshake message of the kind that is due.
 * @throws LaneError `bad-message`, naming the field and the rule.
 */
export function decodeMessage<Schema extends z.ZodType>(schema: Schema, bytes: Uint8Array): z.infer<Schema> {
  if (bytes.length > MAX_HANDSHAKE_MESSAGE_BYTES) {
    throw new LaneError(
      "bad-message",
      `a handshake message has ${bytes.length} bytes, ${MAX_HANDSHAKE_MESSAGE_BYTES} are allowed`,
    );
  }
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (error) {
    throw new LaneError("bad-message", `a handshake message is not MessagePack: ${messageOf(error)}`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue?.path.join(".") ?? "";
  throw new LaneError(
    "bad-message",
    `a handshake message is wrong${field === "" ? "" : ` in ${field}`}: ${issue?.message}`,
  );
}

function bytesOf(lengthIsRight: (length: number) => boolean, rule: string) {
  return z.custom<Uint8Array>((value) => value instanceof Uint8Array && lengthIsRight(value.length), rule);
}
