import { connect, type Socket } from "node:net";
import { WebSocket } from "ws";
import { codeOf, deferred, DeadlineError, messageOf, withDeadline, type Clock } from "../base/index.js";
import { parseAddress, type Address } from "./address.js";
import { SocketConnection, type Connection } from "./connection.js";
import { decodeEnd, encodeEnd, endOfError } from "./end.js";
import { LaneError, laneErrorCode } from "./errors.js";
import { boundHandshake } from "./handshake-bound.js";
import { ClientHandshake, type HelloFields } from "./handshake.js";
import { routeOf, SUBPROTOCOL } from "./purpose.js";

export interface DialOptions {
  /** `ws://HOST:PORT` or `unix:/PATH`. */
  url: string;
  hello: HelloFields;
  /** The pre-shared key; the other side must have the same, or none when there is none here. */
  key?: Buffer | undefined;
  clock: Clock;
  /** For everything from the name's resolution to the end of the handshake. */
  deadlineMs: number;
}

/**
 * Connects to an agent and proves who each side is. When it fails, nothing of the attempt is left.
 * @throws LaneError; its `fatal` is true when dialling again cannot help.
 */
export async function dial(options: DialOptions): Promise<Connection> {
  const attempt = new DialAttempt(parseAddress(options.url), options);
  try {
    return await withDeadline(
      options.clock,
      options.deadlineMs,
      `a connection to ${options.url}`,
      attempt.connection,
    );
  } catch (error) {
    attempt.abandon(error);
    if (error instanceof DeadlineError) throw new LaneError("timeout", error.message);
    throw error;
  }
}

/** One attempt: owns the socket until the handshake has ended. */
class DialAttempt {
  readonly #options: DialOptions;
  readonly #handshake: ClientHandshake;
  readonly #socket: Socket;
  readonly #webSocket: WebSocket;
  readonly #result = deferred<Connection>();
  #endBound: () => void = () => {};

  constructor(address: Address, options: DialOptions) {
    this.#options = options;
    this.#handshake = new ClientHandshake({ fields: options.hello, key: options.key });
    this.#socket = connect("path" in address ? { path: address.path } : { ...address, noDelay: true });
    const route = routeOf(options.hello.purpose);
    const authority = "path" in address ? "localhost" : new URL(options.url).host;
    this.#webSocket = new WebSocket(`ws://${authority}${route.path}`, [SUBPROTOCOL], {
      createConnection: () => this.#socket,
      perMessageDeflate: false,
      maxPayload: route.maxMessageBytes,
    });
    this.#webSocket.on("open", this.#onOpen);
    this.#webSocket.on("message", this.#onMessage);
    this.#webSocket.on("unexpected-response", this.#onResponse);
    this.#webSocket.on("close", this.#onClose);
    this.#webSocket.on("error", this.#onError);
  }

  get connection(): Promise<Connection> {
    return this.#result.promise;
  }

  /** Lets go of everything; tells the other side why, when it is there to be told. */
  abandon(reason: unknown): void {
    this.#fail(reason);
    if (this.#webSocket.readyState === WebSocket.OPEN) {
      const fatal = reason instanceof LaneError && reason.fatal;
      const end = encodeEnd({ code: codeOf(reason), message: messageOf(reason), fatal });
      this.#webSocket.close(end.closeCode, end.reason);
      // Flushes the close frame, which always fits in an idle socket's buffer, and does not wait for the answer.
      this.#socket.destroySoon();
    } else {
      this.#webSocket.terminate();
      this.#socket.destroy();
    }
  }

  readonly #onOpen = (): void => {
    this.#endBound = boundHandshake(this.#socket);
    this.#webSocket.send(this.#handshake.helloBytes);
  };

  readonly #onMessage = (data: Buffer, isBinary: boolean): void => {
    try {
      if (!isBinary) throw new LaneError("bad-message", "a text message came where all are binary");
      const { reply, agreed } = this.#handshake.onMessage(data);
      if (reply !== undefined) this.#webSocket.send(reply);
      if (agreed === undefined) return;
      // In the same turn: frames that came with the welcome belong to the connection.
      this.#letGo();
      const { url: remote, clock } = this.#options;
      const parts = { webSocket: this.#webSocket, socket: this.#socket, hello: agreed, remote, clock };
      this.#result.resolve(new SocketConnection(parts));
    } catch (error) {
      if (!(error instanceof LaneError)) return this.#fail(error);
      const message = `${this.#options.url}: ${error.message}`;
      this.#fail(new LaneError(error.code, message, { fatal: error.fatal }));
    }
  };

  readonly #onResponse = (_request: unknown, response: { statusCode?: number; destroy(): void }): void => {
    response.destroy();
    const status = response.statusCode ?? 0;
    const message = `${this.#options.url} does not answer like an agent of this version: HTTP status ${status}`;
    this.#fail(new LaneError(status >= 500 ? "unreachable" : "refused", message));
  };

  readonly #onClose = (code: number, reason: Buffer): void => {
    const end = decodeEnd(code, reason);
    const message = `${this.#options.url} ended the handshake: ${end.message}`;
    this.#fail(new LaneError(laneErrorCode(end.code, "refused"), message, { fatal: end.fatal }));
  };

  readonly #onError = (error: Error): void => {
    if (codeOf(error).startsWith("WS_ERR_")) {
      const end = endOfError(error, this.#options.url);
      return this.#fail(
        new LaneError(laneErrorCode(end.code, "bad-message"), end.message, { fatal: end.fatal }),
      );
    }
    const message = `${this.#options.url} cannot be reached: ${error.message === "" ? codeOf(error) : error.message}`;
    this.#fail(new LaneError("unreachable", message));
  };

  #fail(error: unknown): void {
    this.#endBound();
    this.#webSocket.off("message", this.#onMessage);
    this.#result.reject(error as Error);
  }

  #letGo(): void {
    this.#endBound();
    this.#webSocket.off("message", this.#onMessage);
    this.#webSocket.off("unexpected-response", this.#onResponse);
    this.#webSocket.off("close", this.#onClose);
    this.#webSocket.off("error", this.#onError);
  }
}
