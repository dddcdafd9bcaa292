import { createServer, type IncomingMessage, type Server } from "node:http";
import type { Socket } from "node:net";
import { WebSocketServer, type WebSocket } from "ws";
import { assert, codeOf, CodedError, deferred, messageOf, type Clock, type Log } from "../base/index.js";
import type { Address } from "./address.js";
import { SocketConnection, type Connection } from "./connection.js";
import { encodeEnd, type ConnectionEnd } from "./end.js";
import { LaneError } from "./errors.js";
import { checkUpgrade, turnAway } from "./gate.js";
import { HalfOpen } from "./half-open.js";
import { boundHandshake } from "./handshake-bound.js";
import { refusedMessage, ServerHandshake, type Hello } from "./handshake.js";
import { CLOSE_DEADLINE_MS, MAX_CONNECTIONS, MAX_REQUEST_HEAD_BYTES } from "./limits.js";
import { ROUTES, SUBPROTOCOL, type Route } from "./purpose.js";
import { listenOnPath } from "./unix-socket.js";

export interface ListenerOptions {
  /** A host and a port (0: any free one), or the path of a unix socket. */
  address: Address;
  /** The pre-shared key; without one, only clients without one are let in. */
  key?: Buffer | undefined;
  clock: Clock;
  log: Log;
  /** Decides on a client that has proved itself, by throwing a coded error to refuse it. */
  authorise?: (hello: Hello) => void;
  /** Takes a connection over: it attaches, and it closes. A coded error thrown here ends the connection for good. */
  onConnection: (connection: Connection) => void;
}

/** Takes connections from clients and peers, and owns each until its handshake has ended. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #http: Server;
  readonly #webSockets: ReadonlyMap<Route, WebSocketServer>;
  readonly #halfOpen: HalfOpen;
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Set<SocketConnection>();
  #closed: Promise<void> | undefined;

  private constructor(options: ListenerOptions) {
    this.#options = options;
    this.#halfOpen = new HalfOpen(options.clock);
    this.#http = createServer({ maxHeaderSize: MAX_REQUEST_HEAD_BYTES, noDelay: true });
    this.#http.maxConnections = MAX_CONNECTIONS;
    this.#webSockets = new Map(ROUTES.map((route) => [route, webSocketServer(route)]));
    this.#http.on("connection", (socket) => this.#onSocket(socket));
    this.#http.on("request", (request) => turnAway(request.socket, 426));
    this.#http.on("clientError", (_error, socket) => socket.destroy());
    this.#http.on("upgrade", (request, socket, head) => this.#onUpgrade(request, socket as Socket, head));
  }

  /**
   * Listens.
   * @throws LaneError `bad-address` when the address is taken, is not this machine's, or must not be used.
   */
  static async open(options: ListenerOptions): Promise<Listener> {
    const listener = new Listener(options);
    try {
      await listener.#listen(options.address);
      return listener;
    } catch (error) {
      listener.#http.close();
      if (error instanceof LaneError || codeOf(error) === "internal") throw error;
      throw new LaneError("bad-address", `cannot listen: ${messageOf(error)}`);
    }
  }

  /** The TCP port; 0 for a unix socket. */
  get port(): number {
    const address = this.#http.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Ends every connection, telling its owner and the other side, and stops listening. Takes a second at the most. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #listen(address: Address): Promise<void> {
    if ("path" in address) return listenOnPath(this.#http, address.path, this.#options.clock);
    const listening = deferred<void>();
    this.#http.once("error", listening.reject);
    this.#http.listen({ host: address.host, port: address.port }, listening.resolve);
    await listening.promise;
    this.#http.off("error", listening.reject);
  }

  async #close(): Promise<void> {
    const stopped = deferred<void>();
    this.#http.close(() => stopped.resolve());
    this.#halfOpen.clear();
    const end: ConnectionEnd = { code: "closed", message: "the agent is stopping", fatal: false };
    for (const connection of this.#connections) connection.endByListener(end);
    const deadline = this.#options.clock.after(CLOSE_DEADLINE_MS, () => {
      for (const socket of this.#sockets) socket.destroy();
    });
    await stopped.promise;
    deadline.cancel();
  }

  #onSocket(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // Whoever owns the socket next hears of the error too; nobody else must fall over it.
    socket.on("error", () => {});
    this.#halfOpen.add(socket);
  }

  #onUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const route = checkUpgrade(request);
    if (typeof route === "number") return turnAway(socket, route);
    const server = this.#webSockets.get(route);
    assert(server !== undefined, "every route has its WebSocket server");
    server.handleUpgrade(request, socket, head, (webSocket) => this.#onWebSocket(webSocket, socket, route));
  }

  #onWebSocket(webSocket: WebSocket, socket: Socket, route: Route): void {
    const { key, authorise } = this.#options;
    const handshake = new ServerHandshake({ route, key, authorise: authorise ?? (() => {}) });
    const endBound = boundHandshake(socket);
    const remote = remoteOf(socket);
    const onMessage = (data: Buffer, isBinary: boolean): void => {
      try {
        if (!isBinary) throw new LaneError("bad-message", "a text message came where all are binary");
        const { reply, agreed } = handshake.onMessage(data);
        if (reply !== undefined) webSocket.send(reply);
        if (agreed === undefined) return;
        endBound();
        webSocket.off("message", onMessage);
        webSocket.off("error", onError);
        this.#onAgreed({ webSocket, socket, hello: agreed, remote });
      } catch (error) {
        webSocket.off("message", onMessage);
        if (!(error instanceof CodedError)) throw error;
        this.#refuse(webSocket, remote, error);
      }
    };
    const onError = (error: Error): void => {
      this.#options.log.debug({ remote, error: error.message }, "a connection broke during its handshake");
    };
    webSocket.on("message", onMessage);
    webSocket.on("error", onError);
  }

  /** The deadline of the half-open connection goes on, for the client to read why and close. */
  #refuse(webSocket: WebSocket, remote: string, error: CodedError): void {
    this.#options.log.warn({ remote, code: error.code, reason: error.message }, "a connection was refused");
    webSocket.send(refusedMessage(error));
    const fatal = !("fatal" in error) || error.fatal === true;
    const { closeCode, reason } = encodeEnd({ code: error.code, message: error.message, fatal });
    webSocket.close(closeCode, reason);
  }

  #onAgreed(parts: { webSocket: WebSocket; socket: Socket; hello: Hello; remote: string }): void {
    this.#halfOpen.remove(parts.socket);
    const connection = new SocketConnection({ ...parts, clock: this.#options.clock });
    this.#connections.add(connection);
    parts.socket.once("close", () => this.#connections.delete(connection));
    try {
      this.#options.onConnection(connection);
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      const fatal = !("fatal" in error) || error.fatal === true;
      connection.close({ code: error.code, message: error.message, fatal });
    }
  }
}

function webSocketServer(route: Route): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: route.maxMessageBytes,
    handleProtocols: () => SUBPROTOCOL,
  });
}

function remoteOf(socket: Socket): string {
  if (socket.remoteAddress === undefined) return "a local process";
  const host = socket.remoteFamily === "IPv6" ? `[${socket.remoteAddress}]` : socket.remoteAddress;
  return `${host}:${socket.remotePort}`;
}
