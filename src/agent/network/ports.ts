import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { AgentError } from "../errors.js";

/** A port of this host that is to lead to a guest. */
export interface HostPort {
  host: string;
  hostPort: number;
  protocol: "tcp" | "udp";
}

const LEAST_PORT_PATH = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/** Below this a port is for root only (Linux, Documentation/networking/ip-sysctl.rst). */
export function leastUnprivilegedPort(): number {
  try {
    return Number(readFileSync(LEAST_PORT_PATH, "utf8"));
  } catch {
    return 1024;
  }
}

/**
 * Makes sure that an emulator can listen on a port, by taking and releasing it. Someone may take it in between; then the emulator's own
 * error says so.
 * @param options.confined whether emulators run as users who are not root.
 * @throws AgentError `port-taken`.
 */
export async function requireFreePort(port: HostPort, options: { confined: boolean }): Promise<void> {
  const least = options.confined ? leastUnprivilegedPort() : 0;
  if (port.hostPort < least) {
    throw new AgentError(
      "port-taken",
      `${port.protocol} port ${port.hostPort} is for root only, and emulators are not: forward a port from ${least} on, ` +
        `or run: sysctl net.ipv4.ip_unprivileged_port_start=${port.hostPort}`,
    );
  }
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
