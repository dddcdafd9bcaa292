import { Packr, Unpackr } from "msgpackr";
import { MAX_CONTROL_BYTES, messageOf } from "../base/index.js";
import { ControlError } from "./errors.js";
import { MAX_DEPTH } from "./limits.js";
import { scanMessage } from "./scan.js";

// Plain MessagePack: no records, no shared structures, no extension types, so that any implementation can read it.
const packr = new Packr({ useRecords: false, moreTypes: false, structuredClone: false });
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  moreTypes: false,
  structuredClone: false,
  int64AsType: "number",
});

/**
 * A copy without the map entries that are undefined: MessagePack has no undefined, and a field that is left out and one
 * that is undefined are the same to whoever writes `{ name: maybe }`. Byte strings are taken as they are.
 */
export function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, entry]) => entry !== undefined)
      .map(([key, entry]) => [key, withoutUndefined(entry)]),
  );
}

/**
 * Encodes one control message.
 * @throws ControlError `too-large` when it would not fit.
 */
export function encodeMessage(message: object): Buffer {
  const bytes = packr.pack(withoutUndefined(message));
  if (bytes.length > MAX_CONTROL_BYTES) {
    throw new ControlError(
      "too-large",
      `a control message of ${bytes.length} bytes is over the limit of ${MAX_CONTROL_BYTES}`,
    );
  }
  return bytes;
}

/**
 * Decodes one control message: a map of plain values. Byte strings are views of `bytes`.
 * @throws ControlError `too-large` or `bad-message`.
 */
export function decodeMessage(
  bytes: Uint8Array,
  limits: { maxBytes: number; maxValues: number },
): Record<string, unknown> {
  if (bytes.length > limits.maxBytes) {
    throw new ControlError(
      "too-large",
      `a control message of ${bytes.length} bytes is over the limit of ${limits.maxBytes}`,
    );
  }
  scanMessage(bytes, { values: limits.maxValues, depth: MAX_DEPTH });
  const value = unpack(bytes);
  if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array) {
    throw new ControlError("bad-message", "a control message is a map");
  }
  return value as Record<string, unknown>;
}

function unpack(bytes: Uint8Array): unknown {
  try {
    return unpackr.unpack(bytes);
  } catch (error) {
    throw new ControlError("bad-message", `a control message is MessagePack: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
