import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { AgentError } from "../errors.js";

/** A port of this host that is to lead to a guest. */
export interface HostPort {
  host: string;
  hostPort: number;
  protocol: "tcp" | "udp";
}

/**
 * Makes sure that a port is free, by taking and releasing it. Someone may take it in between; then the emulator's own
 * error says so.
 * @throws AgentError `port-taken`.
 */
export async function requireFreePort(port: HostPort): Promise<void> {
  try {
    await (port.protocol === "tcp" ? tryTcp(port) : tryUdp(port));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why = code === "EADDRINUSE" ? "is in use" : `cannot be used (${code})`;
    throw new AgentError(
      "port-taken",
      `${port.protocol} port ${port.hostPort} on ${port.host} ${why} on this host; choose another port to forward`,
      { cause: error },
    );
  }
}

function tryTcp(port: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ host: port.host, port: port.hostPort, exclusive: true }, () =>
      server.close(() => resolve()),
    );
  });
}

function tryUdp(port: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(port.host.includes(":") ? "udp6" : "udp4");
    socket.once("error", reject);
    socket.bind({ address: port.host, port: port.hostPort, exclusive: true }, () =>
      socket.close(() => resolve()),
    );
  });
}
