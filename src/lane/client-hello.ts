/** TLS 1.3, RFC 8446: record type 22 (section 5.1), handshake type 1 (section 4). */
const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const RECORD_HEAD_BYTES = 5;
const MESSAGE_HEAD_BYTES = 4;
/** legacy_version and random, section 4.1.2. */
const FIXED_BYTES = 2 + 32;
/** application_layer_protocol_negotiation, RFC 7301 section 3.1. */
const ALPN = 16;

/** Reads numbers and pieces one after the other; undefined once there are not enough bytes. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** A big-endian number of `size` bytes. */
  number(size: 1 | 2): number | undefined {
    if (this.left < size) return undefined;
    const value = this.#bytes.readUIntBE(this.#at, size);
    this.#at += size;
    return value;
  }

  piece(length: number | undefined): Buffer | undefined {
    if (length === undefined || this.left < length) return undefined;
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** A piece that begins with its length, in `size` bytes. */
  vector(size: 1 | 2): Buffer | undefined {
    return this.piece(this.number(size));
  }
}

/**
 * The first protocol a client offers (ALPN), read from the first bytes of its TLS connection; undefined when it offers none, when it is no TLS, and when its
 * first message is not all there. It only tells what a client says, of which nothing is proved.
 */
export function firstProtocolOf(head: Buffer): string | undefined {
  if (head[0] !== HANDSHAKE_RECORD || head[RECORD_HEAD_BYTES] !== CLIENT_HELLO) return undefined;
  const hello = new Reader(head);
  hello.piece(RECORD_HEAD_BYTES + MESSAGE_HEAD_BYTES + FIXED_BYTES);
  hello.vector(1); // legacy_session_id
  hello.vector(2); // cipher_suites
  hello.vector(1); // legacy_compression_methods
  const extensions = new Reader(hello.vector(2) ?? Buffer.alloc(0));
  for (let type = extensions.number(2); type !== undefined; type = extensions.number(2)) {
    const data = extensions.vector(2);
    if (data === undefined) return undefined;
    if (type !== ALPN) continue;
    const list = new Reader(data).vector(2);
    return list && new Reader(list).vector(1)?.toString("latin1");
  }
  return undefined;
}
