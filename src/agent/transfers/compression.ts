import { isIP } from "node:net";

/** What a client may choose for the pages of a sweep. */
export type Compression = "auto" | "lz4" | "none";

/**
 * Whether pages to the agent at `url` are compressed. `auto` compresses unless the peer is on this machine: a frame of mixed content costs about 90 µs to
 * compress, and loopback carries it raw in 20.
 */
export function compressFor(choice: Compression, url: string): boolean {
  if (choice !== "auto") return choice === "lz4";
  if (url.startsWith("unix:")) return false;
  const { hostname } = new URL(url);
  return !(
    hostname === "localhost" ||
    hostname === "[::1]" ||
    (isIP(hostname) === 4 && hostname.startsWith("127."))
  );
}
