/** First bytes of a frame: FIN and binary, alone in the message (RFC 6455, 5.2). */
const WHOLE_BINARY = 0x82;
const SHORT_HEAD_BYTES = 2;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
/** Room for a message at first; what is longer makes it grow. */
const FIRST_ROOM_BYTES = 72 * 1024;

/**
 * Cuts the bytes of a server's side of a WebSocket connection into frames, and takes the binary messages out. It knows only as much of the protocol as that
 * takes: everything else, what is wrong included, is passed on to an implementation that knows all of it, in whole frames.
 */
export class FrameSplitter {
  readonly #maxMessageBytes: number;
  readonly #pass: (bytes: Uint8Array) => void;
  #take: ((message: Uint8Array) => void) | undefined;
  /** The beginning of a frame whose end has not been read. */
  #room = Buffer.allocUnsafeSlow(FIRST_ROOM_BYTES);
  #held = 0;
  /** A frame was too long: the rest is for the other implementation to judge. */
  #passesAll = false;

  /** @param options.pass takes bytes that are valid only until it returns. */
  constructor(options: { maxMessageBytes: number; pass: (bytes: Uint8Array) => void }) {
    this.#maxMessageBytes = options.maxMessageBytes;
    this.#pass = options.pass;
  }

  /** From here on binary messages go to `take`, which copies what it keeps. */
  divert(take: (message: Uint8Array) => void): void {
    this.#take = take;
  }

  /** Takes the next bytes of the stream. */
  split(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#passesAll) return this.#pass(bytes.subarray(at));
      at += this.#held > 0 ? this.#goOn(bytes.subarray(at)) : this.#start(bytes.subarray(at));
    }
  }

  /** Takes whole frames that were passed on and came back, ahead of what is held. */
  splitWhole(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const { headBytes, frameBytes } = shapeOf(bytes.subarray(at));
      if (frameBytes === 0 || at + frameBytes > bytes.length) return this.#pass(bytes.subarray(at));
      this.#give(bytes.subarray(at, at + frameBytes), headBytes);
      at += frameBytes;
    }
  }

  /** With nothing held: gives a frame that is whole in `bytes`, or holds its beginning. Returns how many bytes were taken. */
  #start(bytes: Uint8Array): number {
    const { headBytes, frameBytes } = shapeOf(bytes);
    if (frameBytes > 0 && this.#isTooLong(frameBytes - headBytes)) return 0;
    if (frameBytes > 0 && frameBytes <= bytes.length) {
      this.#give(bytes.subarray(0, frameBytes), headBytes);
      return frameBytes;
    }
    return this.#hold(bytes);
  }

  /** Adds to what is held; gives the frame when it is whole. */
  #goOn(bytes: Uint8Array): number {
    let { headBytes, frameBytes } = shapeOf(this.#room.subarray(0, this.#held));
    let taken = 0;
    // The head itself was cut: byte by byte, at most 14 of them.
    while (frameBytes === 0 && taken < bytes.length) {
      taken += this.#hold(bytes.subarray(taken, taken + 1));
      ({ headBytes, frameBytes } = shapeOf(this.#room.subarray(0, this.#held)));
    }
    if (frameBytes === 0) return taken;
    if (this.#isTooLong(frameBytes - headBytes)) {
      this.#pass(this.#room.subarray(0, this.#held));
      this.#held = 0;
      return taken;
    }
    taken += this.#hold(bytes.subarray(taken, taken + frameBytes - this.#held), frameBytes);
    if (this.#held < frameBytes) return taken;
    this.#held = 0;
    this.#give(this.#room.subarray(0, frameBytes), headBytes);
    return taken;
  }

  #isTooLong(messageBytes: number): boolean {
    if (messageBytes > this.#maxMessageBytes) this.#passesAll = true;
    return this.#passesAll;
  }

  #hold(bytes: Uint8Array, wholeBytes = 0): number {
    const needed = Math.max(wholeBytes, this.#held + bytes.length);
    if (needed > this.#room.length) {
      const roomier = Buffer.allocUnsafeSlow(needed);
      roomier.set(this.#room.subarray(0, this.#held));
      this.#room = roomier;
    }
    this.#room.set(bytes, this.#held);
    this.#held += bytes.length;
    return bytes.length;
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
