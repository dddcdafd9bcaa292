import { codeOf, messageOf } from "../base/index.js";
import { decodeFrame, encodeFrame, type Frame } from "../wire/index.js";
import { FramePool } from "./frame-pool.js";
import type { Channel, ChannelHandlers, FrameLane, LaneEnd } from "./ports.js";

/** Frames over one lane: it numbers what it sends, checks what it gets, and ends the lane for good when the other side breaks the protocol. */
export class FrameChannel implements Channel {
  readonly #lane: FrameLane;
  readonly #transfer: number;
  readonly #pageCount: number;
  readonly #handlers: ChannelHandlers;
  readonly #pool = new FramePool();
  #sent = 0;
  #received = 0;
  #open = true;
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(options: { lane: FrameLane; transfer: number; pageCount: number; handlers: ChannelHandlers }) {
    this.#lane = options.lane;
    this.#transfer = options.transfer;
    this.#pageCount = options.pageCount;
    this.#handlers = options.handlers;
  }

  /** Takes the lane up, once, when its owner is ready: what arrived before, and even the end, is told before this returns. */
  attach(): void {
    this.#lane.attach({ onFrame: (bytes) => this.#onBytes(bytes), onEnd: (end) => this.#onEnd(end) });
  }

  get queuedBytes(): number {
    return this.#lane.queuedBytes;
  }

  /** Bytes of whole frames, both directions. */
  get bytes(): number {
    return this.#bytesSent + this.#bytesReceived;
  }

  /** Sends a frame and returns its size in bytes; 0, and nothing sent, when the lane has ended. */
  send(frame: Frame): number {
    if (!this.#open) return 0;
    const at = { transfer: this.#transfer, sequence: (this.#sent += 1) };
    if (frame.kind !== "pages") return this.#send(encodeFrame(frame, at));
    let pooled: Buffer | undefined;
    const encoded = encodeFrame(frame, at, (bytes) => (pooled = this.#pool.take(bytes)));
    return this.#send(encoded, () => pooled !== undefined && this.#pool.giveBack(pooled));
  }

  #send(encoded: Buffer, onTaken?: () => void): number {
    this.#bytesSent += encoded.length;
    this.#lane.send(encoded, onTaken);
    return encoded.length;
  }

  close(end: LaneEnd): void {
    if (!this.#open) return;
    this.#open = false;
    this.#lane.close(end);
  }

  #onBytes(bytes: Uint8Array): void {
    if (!this.#open) return;
    this.#bytesReceived += bytes.length;
    try {
      const expect = { transfer: this.#transfer, sequence: this.#received + 1, pageCount: this.#pageCount };
      const frame = decodeFrame(bytes, expect);
      this.#received += 1;
      this.#handlers.onFrame(frame, bytes.length);
    } catch (thrown) {
      // An assertion is our own mistake, and must not be blamed on the peer.
      if (codeOf(thrown) === "internal") throw thrown;
      const end = { code: codeOf(thrown), message: messageOf(thrown), fatal: true };
      this.close(end);
      this.#handlers.onEnd(end);
    }
  }

  #onEnd(end: LaneEnd): void {
    if (!this.#open) return;
    this.#open = false;
    this.#handlers.onEnd(end);
  }
}
