import { LaneError } from "./errors.js";

/** One value of a DER encoding (X.690): its tag, all of its bytes and those of its content. */
export interface DerValue {
  tag: number;
  bytes: Buffer;
  content: Buffer;
}

export const DER = { integer: 0x02, sequence: 0x30, utcTime: 0x17, generalizedTime: 0x18 } as const;

const LONG_FORM = 0x80;
/** Lengths of four bytes are more than any certificate or list has. */
const MAX_LENGTH_BYTES = 4;

/**
 * Reads the values that lie one after the other in `bytes`, which are not copied.
 * @throws LaneError `bad-credentials` when a length leads past the end.
 */
export function derValues(bytes: Buffer): DerValue[] {
  const values: DerValue[] = [];
  for (let at = 0; at < bytes.length;) {
    const { value, next } = readValue(bytes, at);
    values.push(value);
    at = next;
  }
  return values;
}

/** The values within the first value, which must have the tag. @throws LaneError `bad-credentials`. */
export function derChildren(value: DerValue | undefined, tag: number): DerValue[] {
  if (value === undefined || value.tag !== tag) throw notDer();
  return derValues(value.content);
}

function readValue(bytes: Buffer, at: number): { value: DerValue; next: number } {
  const tag = bytes[at];
  const first = bytes[at + 1];
  if (tag === undefined || first === undefined) throw notDer();
  const lengthBytes = first < LONG_FORM ? 0 : first - LONG_FORM;
  const start = at + 2 + lengthBytes;
  if (lengthBytes > MAX_LENGTH_BYTES || (first >= LONG_FORM && lengthBytes === 0) || start > bytes.length)
    throw notDer();
  const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes);
  const next = start + length;
  if (next > bytes.length) throw notDer();
  return { value: { tag, bytes: bytes.subarray(at, next), content: bytes.subarray(start, next) }, next };
}

function notDer(): LaneError {
  return new LaneError("bad-credentials", "it is not what X.509 (RFC 5280) says it must be");
}
