import type { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { connect, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, TLSSocket } from "node:tls";
import { WebSocket } from "ws";
import {
  assert,
  codeOf,
  deferred,
  DeadlineError,
  hasRole,
  KEY_IDENTITY,
  LOCAL_IDENTITY,
  messageOf,
  withDeadline,
  type Clock,
  type Identity,
} from "../base/index.js";
import { parseAddress, type PeerAddress } from "./address.js";
import { identityOf } from "./certificate.js";
import { SocketConnection, type Connection } from "./connection.js";
import type { Credentials } from "./credentials.js";
import { decodeEnd, encodeEnd, endOfError } from "./end.js";
import { LaneError, laneErrorCode } from "./errors.js";
import { readRefusal } from "./gate.js";
import { boundHandshake } from "./handshake-bound.js";
import { ClientHandshake, type Hello, type HelloFields } from "./handshake.js";
import { LaneStream } from "./lane-stream.js";
import { routeOf, SUBPROTOCOL, URGENT_PROTOCOLS } from "./purpose.js";
import { dialProblem, requireNotExpired } from "./tls-errors.js";

export interface DialOptions {
  /** `wss://HOST:PORT`, `unix:/PATH`, or `ws://HOST:PORT` on loopback. */
  url: string;
  hello: HelloFields;
  /** For `wss://`: what this side shows, and whose certificates it takes. */
  credentials?: Credentials | undefined;
  /** For `ws://`: the pre-shared key, which the other side must have too. */
  key?: Buffer | undefined;
  /** Throws when the other side is not who it must be; nothing was said to it then but who this side is. */
  requireIdentity?: ((identity: Identity) => void) | undefined;
  clock: Clock;
  /** For everything from the name's resolution to the end of the handshake. */
  deadlineMs: number;
}

/**
 * Connects to an agent and proves who each side is. When it fails, nothing of the attempt is left.
 * @throws LaneError; its `fatal` is true when dialling again cannot help.
 */
export async function dial(options: DialOptions): Promise<Connection> {
  const address = parseAddress(options.url);
  if ("encrypted" in address && address.encrypted) requireCredentials(options);
  const attempt = new DialAttempt(address, options);
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
  /** Between a page lane's socket and its WebSocket. */
  readonly #lane: LaneStream | undefined;
  readonly #webSocket: WebSocket;
  readonly #result = deferred<Connection>();
  #endBound: () => void = () => {};
  /** Known from the start but for TLS, where the handshake below tells. */
  #identity: Identity | undefined;
  #certificate: X509Certificate | undefined;

  constructor(address: PeerAddress, options: DialOptions) {
    this.#options = options;
    const encrypted = "encrypted" in address && address.encrypted;
    this.#handshake = new ClientHandshake({
      fields: options.hello,
      key: encrypted ? undefined : options.key,
    });
    const route = routeOf(options.hello.purpose);
    this.#lane = options.hello.purpose === "control" ? undefined : new LaneStream(route);
    this.#socket = this.#connect(address);
    this.#lane?.adopt(this.#socket);
    const authority = "path" in address ? "localhost" : new URL(options.url).host;
    this.#webSocket = new WebSocket(`ws://${authority}${route.path}`, [SUBPROTOCOL], {
      createConnection: () => this.#stream,
      perMessageDeflate: false,
      maxPayload: route.maxMessageBytes,
    });
    this.#webSocket.on("open", this.#onOpen);
    this.#webSocket.on("message", this.#onMessage);
    this.#webSocket.on("unexpected-response", this.#onResponse);
    this.#webSocket.on("close", this.#onClose);
    this.#webSocket.on("error", this.#onError);
  }

  get #stream(): Duplex {
    return this.#lane ?? this.#socket;
  }

  #connect(address: PeerAddress): Socket {
    const reading = this.#lane === undefined ? {} : { onread: this.#lane.onread };
    if ("path" in address) {
      this.#identity = LOCAL_IDENTITY;
      return connect({ path: address.path, ...reading });
    }
    const { host, port, encrypted } = address;
    if (!encrypted) {
      this.#identity = KEY_IDENTITY;
      return connect({ host, port, noDelay: true, ...reading });
    }
    const secured = connectTls({
      host,
      port,
      ...reading,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(this.#options.hello.purpose === "urgent" ? { ALPNProtocols: [...URGENT_PROTOCOLS] } : {}),
      secureContext: this.#options.credentials?.context,
      minVersion: "TLSv1.3",
      rejectUnauthorized: true,
    });
    secured.setNoDelay(true);
    secured.once("secureConnect", () => this.#onSecure(secured));
    return secured;
  }

  /** Only a certificate that is right in itself, and for this host, comes here. */
  #onSecure(socket: TLSSocket): void {
    try {
      const certificate = socket.getPeerX509Certificate();
      if (certificate === undefined || !socket.authorized)
        throw new LaneError("certificate-untrusted", "the agent's certificate was not found right");
      const identity = identityOf(certificate);
      if (!hasRole(identity, "peer")) {
        throw new LaneError(
          "certificate-role",
          `the certificate of ${identity.name} lacks the role peer, which every agent's has`,
        );
      }
      this.#identity = identity;
      this.#certificate = certificate;
    } catch (error) {
      this.#refuse(error);
      socket.destroy();
    }
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
    assert(this.#identity !== undefined, "who the other side is was found out before anything is said to it");
    try {
      this.#options.requireIdentity?.(this.#identity);
    } catch (error) {
      return this.#refuse(error);
    }
    this.#lane?.frameUp();
    this.#endBound = boundHandshake(this.#stream);
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
      this.#result.resolve(this.#makeConnection(agreed));
    } catch (error) {
      this.#refuse(error);
    }
  };

  #makeConnection(hello: Hello): Connection {
    const { url: remote, clock, credentials } = this.#options;
    const identity = this.#identity as Identity;
    const socket = this.#socket;
    const connection = new SocketConnection({
      webSocket: this.#webSocket,
      socket,
      lane: this.#lane,
      hello,
      identity,
      remote,
      clock,
    });
    const certificate = this.#certificate;
    if (credentials !== undefined && certificate !== undefined) {
      const letGo = credentials.hold({ certificate, end: (end) => connection.endByMaker(end) });
      socket.once("close", letGo);
    }
    return connection;
  }

  readonly #onResponse = (_request: unknown, response: IncomingMessage): void => {
    response.destroy();
    const refusal = readRefusal(response.headers);
    if (refusal !== undefined) return this.#refuse(refusal);
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
    const tls = this.#socket instanceof TLSSocket ? dialProblem(this.#options.url, error) : undefined;
    if (tls !== undefined) return this.#fail(tls);
    if (codeOf(error).startsWith("WS_ERR_")) {
      const end = endOfError(error, this.#options.url);
      return this.#fail(
        new LaneError(laneErrorCode(end.code, "bad-message"), end.message, { fatal: end.fatal }),
      );
    }
    const message = `${this.#options.url} cannot be reached: ${error.message === "" ? codeOf(error) : error.message}`;
    this.#fail(new LaneError("unreachable", message));
  };

  /** Fails, and says of whom it is told. */
  #refuse(error: unknown): void {
    if (!(error instanceof LaneError)) return this.#fail(error);
    this.#fail(new LaneError(error.code, `${this.#options.url}: ${error.message}`, { fatal: error.fatal }));
  }

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

/** @throws LaneError when there is nothing to show to an agent that asks for a certificate. */
function requireCredentials({ credentials, url, clock }: DialOptions): void {
  if (credentials === undefined) {
    throw new LaneError(
      "certificate-missing",
      `${url} asks for a certificate, and this side has none to show`,
    );
  }
  requireNotExpired(credentials, clock.wallMs());
}
