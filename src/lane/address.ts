import { LaneError } from "./errors.js";
import { MAX_SOCKET_PATH_BYTES } from "./limits.js";

/** Where an agent listens: a host and a port, or the path of a unix socket. */
export type Address = { host: string; port: number } | { path: string };

/**
 * Reads `ws://HOST:PORT` or `unix:/PATH`.
 * @throws LaneError `bad-address`.
 */
export function parseAddress(url: string): Address {
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
  // The URL class leaves out the port that is the scheme's default, 80.
  const port = parsed.port === "" && /:80\/?$/u.test(url) ? 80 : Number(parsed.port);
  if (parsed.protocol !== "ws:" || !bare || parsed.hostname === "" || port === 0) throw badAddress(url);
  return { host: parsed.hostname.replace(/^\[(.*)\]$/u, "$1"), port };
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
    `an agent's address is ws://HOST:PORT or unix:/PATH, not ${JSON.stringify(url)}`,
  );
}
