import type { Server, Socket } from "node:net";
import { firstProtocolOf } from "./client-hello.js";
import { URGENT_PROTOCOLS, URGENT_REQUEST } from "./purpose.js";

/** A connection of which nothing was read but its first bytes, for another thread to go on with. */
export interface Handed {
  /** A descriptor of the connection of its own in this process, which whoever takes it over closes. */
  descriptor: number;
  /** What was read. */
  head: Uint8Array;
}

/** Whether a connection is for an urgent lane, by its first bytes. What is not whole yet is not: it is served like the others then. */
export function isUrgent(head: Buffer): boolean {
  return (
    head.subarray(0, URGENT_REQUEST.length).toString("latin1") === URGENT_REQUEST ||
    firstProtocolOf(head) === URGENT_PROTOCOLS[0]
  );
}

/**
 * Hands connections for urgent lanes on before the server of the others sees them: TLS has its keys in the thread that shakes hands.
 * @param options.onSocket called for each connection at once.
 * @param options.handOn takes over a connection, which is not the server's any more.
 */
export function sortConnections(
  server: Server,
  options: { onSocket(socket: Socket): void; handOn(socket: Socket, head: Buffer): void },
): void {
  const others = server.listeners("connection");
  server.removeAllListeners("connection");
  server.on("connection", (socket) => {
    options.onSocket(socket);
    socket.once("readable", () => {
      const head = socket.read() as Buffer | null;
      if (head !== null && isUrgent(head)) return options.handOn(socket, head);
      if (head !== null) socket.unshift(head);
      for (const listener of others) listener.call(server, socket);
    });
  });
}
