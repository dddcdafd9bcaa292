import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { FrameSplitter } from "./frame-splitter.js";

/**
 * The socket of a page lane that was dialled, as a stream. Everything passes through, until frames are `divert`ed: from then on whole binary messages are given
 * to their taker straight from the buffer they were read into, and only what else WebSocket knows goes on to whoever reads the stream. Bytes are read into one
 * buffer that is used again and again, because a buffer for each read brings on the garbage collector, and its pauses stand before faults.
 */
export class LaneStream extends Duplex {
  /** To connect the socket with (net.connect, tls.connect). */
  readonly onread: { buffer: () => Buffer; callback: (length: number) => boolean };
  readonly #splitter: FrameSplitter;
  #socket: Socket | undefined;
  #space: Buffer = Buffer.alloc(0);
  #framed = false;
  #diverted = false;
  #hasRoom = true;

  /** @param options.maxMessageBytes longer messages are left to the reader of the stream, who refuses them. */
  constructor(options: { maxMessageBytes: number }) {
    super({ allowHalfOpen: false });
    this.#splitter = new FrameSplitter({
      maxMessageBytes: options.maxMessageBytes,
      pass: (bytes) => this.#pass(bytes),
    });
    this.onread = {
      buffer: () => (this.#space = this.#splitter.space),
      callback: (length) => this.#onBytes(length),
    };
  }

  /** The socket that was connected with `onread`. From here on it is the stream's, and goes with it. */
  adopt(socket: Socket): void {
    this.#socket = socket;
    socket.on("error", (error) => this.destroy(error));
    socket.on("end", () => this.push(null));
    socket.on("close", () => this.destroy());
  }

  /** The next byte is the first of a WebSocket frame: from here on only whole frames are handed on. */
  frameUp(): void {
    this.#framed = true;
  }

  /**
   * Gives binary messages to `take` from here on, after whoever reads the stream has been given what it has not read yet. The bytes are valid only until it
   * returns.
   */
  divert(take: (message: Uint8Array) => void): void {
    // Reading gives it to the listeners as well, at once.
    while (this.read() !== null);
    this.#diverted = true;
    this.#splitter.divert(take);
    this.#socket?.resume();
  }

  override _read(): void {
    if (!this.#diverted) this.#socket?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connected().write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    const socket = this.#connected();
    socket.cork();
    for (const [index, { chunk }] of chunks.entries()) {
      if (index < chunks.length - 1) socket.write(chunk);
      else socket.write(chunk, done);
    }
    socket.uncork();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#connected().end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket?.destroy();
    done(error);
  }

  #connected(): Socket {
    if (this.#socket === undefined) throw new Error("a lane is written to after its socket was made");
    return this.#socket;
  }

  #pass(bytes: Uint8Array): void {
    this.#hasRoom = this.push(Buffer.from(bytes));
  }

  /** False pauses the socket. */
  #onBytes(length: number): boolean {
    if (this.destroyed) return true;
    if (this.#framed) this.#splitter.filled(length);
    else this.#pass(this.#space.subarray(0, length));
    return this.#diverted || this.#hasRoom;
  }
}
