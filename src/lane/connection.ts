import type { Socket } from "node:net";
import type { WebSocket } from "ws";
import { assert, BoundedQueue, type Clock, type Identity, type Timer } from "../base/index.js";
import { decodeEnd, encodeEnd, endOfError, type ConnectionEnd } from "./end.js";
import type { Hello } from "./handshake.js";
import { CLOSE_DEADLINE_MS, DEAD_AFTER_MS, MAX_EARLY_FRAMES, MAX_QUEUED_BYTES } from "./limits.js";
import type { LaneStream } from "./lane-stream.js";
import { Liveness } from "./liveness.js";
import { routeOf } from "./purpose.js";

/** What a connection tells its owner. */
export interface ConnectionHandlers {
  /** A whole message. The bytes are valid until this returns: whoever keeps them copies them. */
  onFrame(frame: Uint8Array): void;
  /** At most once, the last call, and never after the owner's own `close`. */
  onEnd(end: ConnectionEnd): void;
}

/** One ordered, reliable stream of messages, of which both sides have proved who they are. */
export interface Connection {
  /** What it is for, and the version and features both sides agreed on. */
  readonly hello: Hello;
  /** Who is at the other end. */
  readonly identity: Identity;
  /** Address of the other side, for messages. */
  readonly remote: string;
  /**
   * Hands over one message, which is not copied: the caller no longer touches it. After the end it is dropped.
   * @param onTaken called once when the network stack has its bytes and they may change; never for a message that is dropped.
   */
  send(frame: Uint8Array, onTaken?: () => void): void;
  /** Bytes handed over that the machine's network stack has not yet taken. */
  readonly queuedBytes: number;
  /** Must be called once, directly after the connection is obtained; what arrived before is delivered then, in order. */
  attach(handlers: ConnectionHandlers): void;
  /**
   * Keeps it alive while nobody has a use for it: called before `attach`, which may then come much later. Nothing may come over it meanwhile, so a message ends it. `onEnd`
   * is called once when it ends before it is attached, whoever ended it but `close`.
   */
  park(onEnd: () => void): void;
  /** Tells the other side why, and ends the connection within a second; `onEnd` is not called. May be called twice. */
  close(end: ConnectionEnd): void;
}

/** A connection over a WebSocket whose handshake has just ended. Whoever it is given to closes it. */
export class SocketConnection implements Connection {
  readonly hello: Hello;
  readonly identity: Identity;
  readonly remote: string;
  readonly #webSocket: WebSocket;
  readonly #socket: Socket;
  readonly #lane: LaneStream | undefined;
  readonly #clock: Clock;
  readonly #liveness: Liveness;
  readonly #maxMessageBytes: number;
  readonly #early = new BoundedQueue<Uint8Array>(MAX_EARLY_FRAMES);
  #handlers: ConnectionHandlers | undefined;
  #onParkedEnd: (() => void) | undefined;
  /** `open`; `ended` by the other side or for its fault, to be told to the owner; `over`, nothing more to tell. */
  #state: { is: "open" } | { is: "ended"; end: ConnectionEnd } | { is: "over" } = { is: "open" };
  #closing: Timer | undefined;
  #overflowing = false;

  constructor(options: {
    webSocket: WebSocket;
    socket: Socket;
    /** Where it stands between the socket and the WebSocket: messages are taken there. */
    lane?: LaneStream | undefined;
    hello: Hello;
    identity: Identity;
    remote: string;
    clock: Clock;
  }) {
    this.hello = options.hello;
    this.identity = options.identity;
    this.remote = options.remote;
    this.#webSocket = options.webSocket;
    this.#socket = options.socket;
    this.#lane = options.lane;
    this.#clock = options.clock;
    this.#maxMessageBytes = routeOf(options.hello.purpose).maxMessageBytes;
    this.#liveness = new Liveness({
      socket: options.socket,
      clock: options.clock,
      ping: () => this.#webSocket.ping(),
      onDead: () => this.#onDead(`nothing was heard from ${this.remote} for ${DEAD_AFTER_MS} ms`),
    });
    this.#webSocket.on("message", (data: Buffer, isBinary) => this.#onMessage(data, isBinary));
    this.#webSocket.on("error", (error) => this.#onError(error));
    this.#webSocket.on("close", (code, reason) => this.#onClose(code, reason));
    // Nothing is read until somebody listens.
    this.#webSocket.pause();
  }

  get queuedBytes(): number {
    return this.#webSocket.bufferedAmount;
  }

  send(frame: Uint8Array, onTaken?: () => void): void {
    if (this.#state.is !== "open") return;
    assert(
      frame.length <= this.#maxMessageBytes,
      `a ${this.hello.purpose} message of ${frame.length} bytes is too long`,
    );
    this.#webSocket.send(frame, { binary: true }, onTaken && ((error) => error ?? onTaken()));
    if (this.#overflowing || this.#webSocket.bufferedAmount <= MAX_QUEUED_BYTES) return;
    this.#overflowing = true;
    // Not at once: the caller of `send` does not expect `onEnd` before it returns.
    this.#clock.soon(() =>
      this.#onDead(`${this.remote} does not read: ${this.queuedBytes} bytes wait for it`),
    );
  }

  attach(handlers: ConnectionHandlers): void {
    assert(this.#handlers === undefined, "a connection is attached once");
    this.#handlers = handlers;
    for (let frame = this.#early.take(); frame !== undefined; frame = this.#early.take())
      handlers.onFrame(frame);
    this.#lane?.divert((message) => this.#onMessage(message, true));
    this.#tellEnd();
    this.#webSocket.resume();
  }

  park(onEnd: () => void): void {
    assert(this.#handlers === undefined, "a connection is parked before it is attached");
    if (this.#state.is !== "open") return onEnd();
    this.#onParkedEnd = onEnd;
    // What says that the other side lives must be read.
    this.#webSocket.resume();
  }

  close(end: ConnectionEnd): void {
    if (this.#state.is === "over") return;
    this.#state = { is: "over" };
    this.#early.clear();
    this.#closeSocket(end);
  }

  /** Ends it as `close` does, and tells the owner: for whoever made the connection and gave it away. */
  endByMaker(end: ConnectionEnd): void {
    if (this.#state.is === "open") this.#end(end);
  }

  #onMessage(data: Uint8Array, isBinary: boolean): void {
    if (this.#state.is !== "open") return;
    if (!isBinary) {
      this.#end({ code: "bad-message", message: "a text message came where all are binary", fatal: true });
    } else if (this.#handlers !== undefined) {
      this.#handlers.onFrame(data);
    } else if (this.#onParkedEnd !== undefined) {
      const message = `a message came on a ${this.hello.purpose} lane that nobody has taken up`;
      this.#end({ code: "bad-message", message, fatal: true });
    } else if (!this.#early.offer(data)) {
      this.#end({
        code: "too-large",
        message: `more than ${MAX_EARLY_FRAMES} messages came at once`,
        fatal: true,
      });
    }
  }

  /** Ends the connection for what the other side did, tells it, and tells the owner. */
  #end(end: ConnectionEnd): void {
    this.#closeSocket(end);
    this.#finish(end);
  }

  #onDead(message: string): void {
    this.#webSocket.terminate();
    this.#finish({ code: "dead", message, fatal: false });
  }

  #onError(error: Error): void {
    this.#finish(endOfError(error, this.remote));
    // What `ws` answers by itself (1002, 1009) has its chance; the socket does not stay for longer.
    this.#destroyLater();
  }

  #onClose(code: number, reason: Buffer): void {
    this.#closing?.cancel();
    this.#finish(decodeEnd(code, reason));
  }

  #closeSocket(end: ConnectionEnd): void {
    this.#liveness.stop();
    const { closeCode, reason } = encodeEnd(end);
    this.#webSocket.close(closeCode, reason);
    // The answer to the close must be read, whether or not anybody listens.
    this.#webSocket.resume();
    this.#destroyLater();
  }

  #destroyLater(): void {
    if (this.#socket.destroyed) return;
    this.#closing ??= this.#clock.after(CLOSE_DEADLINE_MS, () => this.#webSocket.terminate());
  }

  #finish(end: ConnectionEnd): void {
    this.#liveness.stop();
    if (this.#state.is !== "open") return;
    this.#state = { is: "ended", end };
    if (this.#handlers === undefined) this.#onParkedEnd?.();
    this.#tellEnd();
  }

  #tellEnd(): void {
    if (this.#state.is !== "ended" || this.#handlers === undefined) return;
    const { end } = this.#state;
    this.#state = { is: "over" };
    this.#handlers.onEnd(end);
  }
}
