import { closeSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { WebSocketServer, type WebSocket } from "ws";
import {
  assert,
  codeOf,
  CodedError,
  deferred,
  hasRole,
  KEY_IDENTITY,
  LOCAL_IDENTITY,
  messageOf,
  type Clock,
  type Identity,
  type Log,
} from "../base/index.js";
import { isLoopback, type Address } from "./address.js";
import { SocketConnection, type Connection } from "./connection.js";
import type { Credentials } from "./credentials.js";
import { encodeEnd, type ConnectionEnd } from "./end.js";
import { LaneError } from "./errors.js";
import { checkUpgrade, turnAway } from "./gate.js";
import { HalfOpen } from "./half-open.js";
import { boundHandshake } from "./handshake-bound.js";
import { refusedMessage, ServerHandshake, type Hello } from "./handshake.js";
import { CLOSE_DEADLINE_MS, MAX_CONNECTIONS, MAX_REQUEST_HEAD_BYTES } from "./limits.js";
import { ROUTES, SUBPROTOCOL, URGENT_PROTOCOLS, type Role, type Route } from "./purpose.js";
import { sortConnections, type Handed } from "./sorting.js";
import { requireTrusted, type Shown } from "./tls-errors.js";
import { listenOnDescriptor, listenOnPath } from "./unix-socket.js";

export interface ListenerOptions {
  /** A host and a port (0: any free one), or the path of a unix socket. */
  address: Address;
  /** A socket that listens there already, whose maker has left: its descriptor in this process, which becomes the listener's. */
  inherited?: number | undefined;
  /** For a host and a port: what this side shows, and whose certificates it takes. */
  credentials?: Credentials | undefined;
  /** For a host and a port without certificates: the pre-shared key. On loopback only. */
  key?: Buffer | undefined;
  clock: Clock;
  log: Log;
  /** Decides on a client that has proved itself, by throwing a coded error to refuse it. */
  authorise?: (hello: Hello, identity: Identity) => void;
  /** Takes a connection over: it attaches, and it closes. A coded error thrown here ends the connection for good. */
  onConnection: (connection: Connection) => void;
  /** Takes over connections for urgent lanes of which nothing is known yet; without it they are taken like the others. */
  handOn?: {
    /** Another descriptor of the same connection; throws a coded error when there is none left. */
    duplicate(descriptor: number): number;
    take(handed: Handed): void;
  };
}

/** Takes connections from clients and peers, and owns each until its handshake has ended. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #http: Server;
  readonly #webSockets: ReadonlyMap<Route, WebSocketServer>;
  readonly #halfOpen: HalfOpen;
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Set<SocketConnection>();
  /** TLS sockets of whose certificate it is known who holds it, or why it is not let in. */
  readonly #holders = new WeakMap<Socket, Shown | LaneError>();
  /** The TCP sockets below TLS sockets that have not ended their handshake, by the other side's address and port. */
  readonly #below = new Map<string, Socket>();
  #stopReloading = (): void => {};
  #closed: Promise<void> | undefined;

  private constructor(options: ListenerOptions) {
    this.#options = options;
    this.#halfOpen = new HalfOpen(options.clock);
    this.#http = this.#makeServer();
    this.#http.maxConnections = MAX_CONNECTIONS;
    this.#webSockets = new Map(ROUTES.map((route) => [route, webSocketServer(route)]));
    const onSocket = (socket: Socket): void => this.#onSocket(socket);
    if (options.handOn === undefined) this.#http.on("connection", onSocket);
    else sortConnections(this.#http, { onSocket, handOn: (socket, head) => this.#handOn(socket, head) });
    this.#http.on("request", (request) => turnAway(request.socket, 426));
    this.#http.on("clientError", (_error, socket) => socket.destroy());
    this.#http.on("upgrade", (request, socket, head) => this.#onUpgrade(request, socket as Socket, head));
  }

  /**
   * Listens.
   * @throws LaneError `bad-address` when the address is taken, is not this machine's, or must not be used.
   */
  static async open(options: ListenerOptions): Promise<Listener> {
    requireProtection(options);
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

  /**
   * Listens nowhere: takes connections that a listener of another thread has handed on, as if they had come to `address`.
   * @throws LaneError `bad-address` as `open` does.
   */
  static ofHanded(options: Omit<ListenerOptions, "handOn" | "inherited">): Listener {
    requireProtection(options);
    return new Listener(options);
  }

  /** Takes a connection over, with its descriptor. */
  take({ descriptor, head }: Handed): void {
    try {
      const socket = new Socket({ fd: descriptor, readable: true, writable: true });
      socket.setNoDelay(true);
      socket.unshift(head);
      this.#http.emit("connection", socket);
    } catch (error) {
      // It may have been closed by the other side before it came here.
      if (codeOf(error) === "internal") throw error;
      closeSync(descriptor);
      this.#options.log.warn({ problem: messageOf(error) }, "a connection could not be taken over");
    }
  }

  /** The TCP port; 0 for a unix socket. */
  get port(): number {
    const address = this.#http.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** The descriptor of the listening socket in this process, for another one to inherit. */
  get descriptor(): number {
    const { _handle: handle } = this.#http as { _handle?: { fd?: number } };
    assert(handle?.fd !== undefined && handle.fd >= 0, "a listener that listens has a descriptor");
    return handle.fd;
  }

  /**
   * Ends every connection, telling its owner and the other side, and stops listening. Takes a second at the most.
   * @param options.bequeath another process has inherited the socket: whoever connects from now on waits for that one.
   */
  close(options: { bequeath: boolean } = { bequeath: false }): Promise<void> {
    return (this.#closed ??= this.#close(options.bequeath));
  }

  async #listen(address: Address): Promise<void> {
    const { inherited } = this.#options;
    if (inherited !== undefined) return listenOnDescriptor(this.#http, inherited);
    if ("path" in address) return listenOnPath(this.#http, address.path, this.#options.clock);
    const listening = deferred<void>();
    this.#http.once("error", listening.reject);
    this.#http.listen({ host: address.host, port: address.port }, listening.resolve);
    await listening.promise;
    this.#http.off("error", listening.reject);
  }

  async #close(bequeath: boolean): Promise<void> {
    const { address } = this.#options;
    const stopped = deferred<void>();
    this.#stopReloading();
    if ("path" in address && !bequeath) rmSync(address.path, { force: true });
    this.#http.close(() => stopped.resolve());
    this.#halfOpen.clear();
    const end: ConnectionEnd = { code: "closed", message: "the agent is stopping", fatal: false };
    for (const connection of this.#connections) connection.endByMaker(end);
    const deadline = this.#options.clock.after(CLOSE_DEADLINE_MS, () => {
      for (const socket of this.#sockets) socket.destroy();
    });
    await stopped.promise;
    deadline.cancel();
  }

  #makeServer(): Server {
    const { credentials } = this.#options;
    const common = { maxHeaderSize: MAX_REQUEST_HEAD_BYTES, noDelay: true };
    if (credentials === undefined) return createServer(common);
    const server: TlsServer = createTlsServer({
      ...common,
      ALPNProtocols: [...URGENT_PROTOCOLS],
      ...credentials.options,
      requestCert: true,
      // Who shows no good certificate is refused by `#onSecure`, with a reason he can read, which Node's own refusal does not give.
      rejectUnauthorized: false,
    });
    server.on("secureConnection", (socket) => this.#onSecure(socket, credentials));
    this.#stopReloading = credentials.onReload(() => server.setSecureContext(credentials.options));
    return server;
  }

  /** Looks at a certificate as soon as it is there; nothing that came over the connection was read yet. */
  #onSecure(socket: TLSSocket, credentials: Credentials): void {
    socket.on("error", () => {});
    try {
      this.#holders.set(socket, requireTrusted(socket, credentials));
    } catch (error) {
      if (!(error instanceof LaneError)) throw error;
      this.#holders.set(socket, error);
    }
  }

  /** Who is at the other end of a socket, or why he is not let in. */
  #holderOf(socket: Socket): Identity | LaneError {
    if ("path" in this.#options.address) return LOCAL_IDENTITY;
    if (this.#options.credentials === undefined) return KEY_IDENTITY;
    const holder = this.#holders.get(socket);
    if (holder === undefined) return new LaneError("certificate-missing", "no certificate was shown");
    return holder instanceof LaneError ? holder : holder.identity;
  }

  #onSocket(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // Whoever owns the socket next hears of the error too; nobody else must fall over it.
    socket.on("error", () => {});
    this.#halfOpen.add(socket);
    if (this.#options.credentials === undefined) return;
    const remote = remoteOf(socket);
    this.#below.set(remote, socket);
    socket.once("close", () => {
      if (this.#below.get(remote) === socket) this.#below.delete(remote);
    });
  }

  #handOn(socket: Socket, head: Buffer): void {
    const { handOn, log } = this.#options;
    const { _handle: handle } = socket as { _handle?: { fd?: number } };
    try {
      const descriptor = handOn?.duplicate(handle?.fd ?? -1) ?? -1;
      // What was read goes with the connection.
      handOn?.take({ descriptor, head: Uint8Array.from(head) });
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      log.warn({ remote: remoteOf(socket), reason: error.message }, "an urgent lane could not be handed on");
    }
    // Nothing is said to the client by this descriptor's end, while there is another.
    socket.destroy();
  }

  #onUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const identity = this.#holderOf(socket);
    if (identity instanceof LaneError) {
      const { code, message: reason } = identity;
      this.#options.log.warn({ remote: remoteOf(socket), code, reason }, "a connection was refused");
      return turnAway(socket, 403, identity);
    }
    const route = checkUpgrade(request);
    if (typeof route === "number") return turnAway(socket, route);
    const server = this.#webSockets.get(route);
    assert(server !== undefined, "every route has its WebSocket server");
    server.handleUpgrade(request, socket, head, (webSocket) =>
      this.#onWebSocket(webSocket, socket, { route, identity }),
    );
  }

  #onWebSocket(webSocket: WebSocket, socket: Socket, of: { route: Route; identity: Identity }): void {
    const { route, identity } = of;
    const { key, authorise } = this.#options;
    const handshake = new ServerHandshake({
      route,
      key,
      authorise: (hello) => {
        requireRoleFor(hello.role, identity);
        authorise?.(hello, identity);
      },
    });
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
        this.#onAgreed({ webSocket, socket, hello: agreed, identity, remote });
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
  #holdToCertificate(socket: Socket, connection: SocketConnection): void {
    const { credentials } = this.#options;
    const holder = this.#holders.get(socket);
    if (credentials === undefined || holder === undefined || holder instanceof LaneError) return;
    const { certificate } = holder;
    const letGo = credentials.hold({ certificate, end: (end) => connection.endByMaker(end) });
    socket.once("close", letGo);
  }

  #refuse(webSocket: WebSocket, remote: string, error: CodedError): void {
    this.#options.log.warn({ remote, code: error.code, reason: error.message }, "a connection was refused");
    webSocket.send(refusedMessage(error));
    const fatal = !("fatal" in error) || error.fatal === true;
    const { closeCode, reason } = encodeEnd({ code: error.code, message: error.message, fatal });
    webSocket.close(closeCode, reason);
  }

  #onAgreed(parts: {
    webSocket: WebSocket;
    socket: Socket;
    hello: Hello;
    identity: Identity;
    remote: string;
  }): void {
    this.#halfOpen.remove(this.#below.get(parts.remote) ?? parts.socket);
    const connection = new SocketConnection({ ...parts, clock: this.#options.clock });
    this.#connections.add(connection);
    this.#holdToCertificate(parts.socket, connection);
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

/** A port that anybody can connect to must ask who he is. */
function requireProtection({ address, credentials, key }: ListenerOptions): void {
  if ("path" in address || credentials !== undefined) return;
  if (key !== undefined && isLoopback(address.host)) return;
  throw new LaneError(
    "bad-address",
    `${address.host}:${address.port} is only listened on with a certificate, or with a pre-shared key on loopback`,
  );
}

/** @throws LaneError `certificate-role` when a certificate has no role for what its holder wants to be. */
function requireRoleFor(role: Role, identity: Identity): void {
  const fits = role === "peer" ? hasRole(identity, "peer") : hasRole(identity, "observe");
  if (fits) return;
  const lacks = role === "peer" ? "the role peer" : "one of the roles observe, operate and admin";
  const roles = identity.roles.length === 0 ? "none" : identity.roles.join(", ");
  throw new LaneError("certificate-role", `${identity.name} lacks ${lacks}, and has ${roles}`);
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
