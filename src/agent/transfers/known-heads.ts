import { createHash } from "node:crypto";
import { AgentError } from "../errors.js";

/** Parents of a few kinds come back again and again; more are not worth their room. */
const MAX_HEADS = 8;
const MAX_HEAD_BYTES = 4 * 1024 * 1024;

/** Digests of heads that were asked for before: an emulator's stays the same object. */
const digests = new WeakMap<Uint8Array, string>();

/** The digest by which the first part of a device state is known, in hexadecimal. */
export function digestOf(head: Uint8Array): string {
  const known = digests.get(head);
  if (known !== undefined) return known;
  const digest = createHash("sha256").update(head).digest("hex");
  digests.set(head, digest);
  return digest;
}

/** The first parts of device states that children of this host were given, firmware mostly, so that the same are not sent again. */
export class KnownHeads {
  /** The one used last comes last. */
  readonly #heads = new Map<string, Uint8Array>();

  /**
   * The head with this digest: the bytes that came, or those known of before; undefined when they have to be sent.
   * @throws AgentError `bad-request` when the bytes have another digest.
   */
  take({
    sha256,
    deviceState,
  }: {
    sha256: string;
    deviceState?: Uint8Array | undefined;
  }): Uint8Array | undefined {
    // What came lies in a message's buffer.
    const head = deviceState === undefined ? this.#heads.get(sha256) : Uint8Array.from(deviceState);
    if (head === undefined) return undefined;
    if (deviceState !== undefined && digestOf(head) !== sha256)
      throw new AgentError("bad-request", "the first part of a device state is not what its digest says");
    this.#heads.delete(sha256);
    if (head.length <= MAX_HEAD_BYTES) this.#heads.set(sha256, head);
    for (const oldest of this.#heads.keys()) {
      if (this.#heads.size <= MAX_HEADS) break;
      this.#heads.delete(oldest);
    }
    return head;
  }
}
