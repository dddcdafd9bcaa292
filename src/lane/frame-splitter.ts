/** First byte of a frame: FIN and binary, alone in the message (RFC 6455, 5.2). */
const WHOLE_BINARY = 0x82;
const SHORT_HEAD_BYTES = 2;
const LONGEST_HEAD_BYTES = 14;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
/** Bytes to read when it is not known how long the next frame is: one of the sweep, while somebody waits for pages. */
const READ_BYTES = 68 * 1024;

/**
 * Cuts the bytes of a server's side of a WebSocket connection into frames, and takes the binary messages out. It knows only as much of the protocol as that
 * takes: everything else, what is wrong included, is passed on to an implementation that knows all of it, in whole frames. Bytes are read into its
 * own room and messages given from there, so that hardly any is ever copied.
 */
export class FrameSplitter {
  readonly #maxMessageBytes: number;
  readonly #pass: (bytes: Uint8Array) => void;
  #take: ((message: Uint8Array) => void) | undefined;
  /** Frames, of which the last may lack its end. It grows with the longest message, and is bounded as that is. */
  #room = Buffer.allocUnsafeSlow(READ_BYTES);
  #heldBytes = 0;
  /** A frame was too long: the rest is for the other implementation to judge. */
  #passesAll = false;

  /** @param options.pass takes bytes that are valid only until it returns. */
  constructor(options: { maxMessageBytes: number; pass: (bytes: Uint8Array) => void }) {
    this.#maxMessageBytes = options.maxMessageBytes;
    this.#pass = options.pass;
  }

  /** Where the next bytes of the stream are to be put. */
  get space(): Buffer {
    const { frameBytes } = shapeOf(this.#room.subarray(0, this.#heldBytes));
    // Up to the end of the frame that has begun, and no further: what would follow had to be moved.
    const end = frameBytes > this.#heldBytes ? frameBytes : this.#heldBytes + READ_BYTES - LONGEST_HEAD_BYTES;
    if (end > this.#room.length) {
      const roomier = Buffer.allocUnsafeSlow(end);
      this.#room.copy(roomier, 0, 0, this.#heldBytes);
      this.#room = roomier;
    }
    return this.#room.subarray(this.#heldBytes, end);
  }

  /** From here on binary messages go to `take`, which copies what it keeps. */
  divert(take: (message: Uint8Array) => void): void {
    this.#take = take;
  }

  /** So many bytes were put into the space. */
  filled(bytes: number): void {
    const past = this.#heldBytes + bytes;
    this.#heldBytes = 0;
    let at = 0;
    while (at < past && !this.#passesAll) {
      const rest = this.#room.subarray(at, past);
      const { headBytes, frameBytes } = shapeOf(rest);
      if (frameBytes - headBytes > this.#maxMessageBytes) this.#passesAll = true;
      else if (frameBytes === 0 || frameBytes > rest.length) break;
      else this.#give(rest.subarray(0, frameBytes), headBytes);
      if (!this.#passesAll) at += frameBytes;
    }
    if (this.#passesAll) return this.#pass(this.#room.subarray(at, past));
    if (at > 0) this.#room.copyWithin(0, at, past);
    this.#heldBytes = past - at;
  }

  #give(frame: Uint8Array, headBytes: number): void {
    if (this.#take !== undefined && frame[0] === WHOLE_BINARY && !isMasked(frame))
      this.#take(frame.subarray(headBytes));
    else this.#pass(frame);
  }
}

/** Bytes of the head and of the whole of the frame that begins `bytes`; zeros while too little is there to say. */
function shapeOf(bytes: Uint8Array): { headBytes: number; frameBytes: number } {
  if (bytes.length < SHORT_HEAD_BYTES) return { headBytes: 0, frameBytes: 0 };
  const length = (bytes[1] as number) & 0x7f;
  const lengthBytes = length === LENGTH_16 ? 2 : length === LENGTH_64 ? 8 : 0;
  const headBytes = SHORT_HEAD_BYTES + lengthBytes + (isMasked(bytes) ? 4 : 0);
  if (bytes.length < headBytes) return { headBytes: 0, frameBytes: 0 };
  let messageBytes = lengthBytes === 0 ? length : 0;
  for (let at = SHORT_HEAD_BYTES; at < SHORT_HEAD_BYTES + lengthBytes; at += 1) {
    messageBytes = messageBytes * 256 + (bytes[at] as number);
  }
  return { headBytes, frameBytes: headBytes + messageBytes };
}

function isMasked(frame: Uint8Array): boolean {
  return ((frame[1] as number) & 0x80) !== 0;
}
