import { isIP } from "node:net";
import { LaneError } from "./errors.js";
import { MAX_SOCKET_PATH_BYTES } from "./limits.js";

/** Where an agent listens: a host and a port, or the path of a unix socket. */
export type Address = { host: string; port: number } | { path: string };

/** How an agent is reached. */
export type PeerAddress = { host: string; port: number; encrypted: boolean } | { path: string };

/**
 * Reads `wss://HOST:PORT`, `unix:/PATH` or, for this machine only, `ws://HOST:PORT`.
 * @throws LaneError `bad-address`.
 */
export function parseAddress(url: string): PeerAddress {
  if (url.startsWith("unix:")) {
    const path = url.slice("unix:".length);
    checkSocketPath(path);
    return { path };
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw badAddress(url);
  }
  const bare =
    parsed.pathname === "/" && parsed.search === "" && parsed.hash === "" && parsed.username === "";
  const encrypted = parsed.protocol === "wss:";
  // The URL class leaves out the port that is the scheme's default.
  const usual = encrypted ? 443 : 80;
  const port =
    parsed.port === "" && url.replace(/\/$/u, "").endsWith(`:${usual}`) ? usual : Number(parsed.port);
  const known = encrypted || parsed.protocol === "ws:";
  if (!known || !bare || parsed.hostname === "" || port === 0) throw badAddress(url);
  const host = parsed.hostname.replace(/^\[(.*)\]$/u, "$1");
  if (!encrypted && !isLoopback(host)) {
    throw new LaneError(
      "bad-address",
      `ws:// is not encrypted and only for agents of this machine, on loopback: write wss:// instead of ${url}`,
    );
  }
  return { host, port, encrypted };
}

/** Whether an address is this machine's own, which nobody else reaches. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** @throws LaneError `bad-address` when the kernel would not take the path, or cut it. */
export function checkSocketPath(path: string): void {
  const sizeBytes = Buffer.byteLength(path);
  if (!path.startsWith("/") || path.includes("\0") || sizeBytes > MAX_SOCKET_PATH_BYTES) {
    throw new LaneError(
      "bad-address",
      `a unix socket's path is absolute and at most ${MAX_SOCKET_PATH_BYTES} bytes long: ${JSON.stringify(path)}`,
    );
  }
}

function badAddress(url: string): LaneError {
  return new LaneError(
    "bad-address",
    `an agent's address is wss://HOST:PORT or unix:/PATH, not ${JSON.stringify(url)}`,
  );
}
