import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { after } from "node:test";
import { WebSocket } from "ws";
import { deferred } from "../../src/base/index.js";
import { KEY } from "./lane-pair.js";
import { ClientHandshake, type HelloFields } from "../../src/lane/handshake.js";

const PAGE_LANE: HelloFields = { purpose: "urgent", role: "peer", transfer: 1, epoch: 1 };

const opened: { destroy(): void }[] = [];
after(() => {
  for (const socket of opened) socket.destroy();
});

/** A TCP connection with what came on it, for saying things no agent says. */
export class RawClient {
  readonly socket: Socket;
  received = "";
  closed = false;

  constructor(port: number, firstBytes = "") {
    this.socket = connect({ host: "127.0.0.1", port });
    opened.push(this.socket);
    this.socket.on("error", () => {});
    this.socket.on("data", (chunk) => (this.received += chunk.toString("latin1")));
    this.socket.on("close", () => (this.closed = true));
    if (firstBytes !== "") this.socket.write(firstBytes);
  }
}

/** The head of an upgrade request, with some of its lines changed; undefined leaves one out. */
export function upgradeRequest(path: string, changes: Record<string, string | undefined> = {}): string {
  const lines: Record<string, string | undefined> = {
    Host: "localhost",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "ramet.v1",
    ...changes,
  };
  const head = Object.entries(lines).filter(([, value]) => value !== undefined);
  return `GET ${path} HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

/** A WebSocket to a listener, upgraded and nothing more. */
export async function upgraded(url: string, path = "/v1/lane"): Promise<WebSocket> {
  const webSocket = new WebSocket(`${url}${path}`, ["ramet.v1"], { perMessageDeflate: false });
  opened.push({ destroy: () => webSocket.terminate() });
  webSocket.on("error", () => {});
  await once(webSocket, "open");
  return webSocket;
}

/** A WebSocket whose handshake has ended well, without an agent behind it. */
export async function welcomed(url: string): Promise<WebSocket> {
  const webSocket = await upgraded(url);
  const handshake = new ClientHandshake({ fields: PAGE_LANE, key: KEY });
  const done = deferred<void>();
  const onMessage = (data: Buffer): void => {
    const { reply, agreed } = handshake.onMessage(data);
    if (reply !== undefined) webSocket.send(reply);
    if (agreed !== undefined) done.resolve();
  };
  webSocket.on("message", onMessage);
  webSocket.send(handshake.helloBytes);
  await done.promise;
  webSocket.off("message", onMessage);
  return webSocket;
}

/** A hello as an agent says it. */
export function helloBytes(): Buffer {
  return new ClientHandshake({ fields: PAGE_LANE }).helloBytes;
}

/** A TCP server that is no agent. */
export async function rawServer(onSocket: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  opened.push({ destroy: () => void server.close() });
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** Connections that are open. */
    sockets,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = deferred<void>();
      server.close(() => closed.resolve());
      await closed.promise;
    },
  };
}
