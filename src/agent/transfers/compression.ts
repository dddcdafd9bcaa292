import { isIP } from "node:net";
import type { CompressionChoice } from "../../transfer/index.js";

/**
 * How a transfer to the agent at `url` begins, and whether it stays so. `auto` begins compressed unless the peer is on this machine, where a frame of mixed
 * content costs more to compress than to carry raw, and goes on as measured.
 */
export function compressionFor(
  choice: CompressionChoice,
  url: string,
): { compress: boolean; compression: CompressionChoice } {
  return { compress: choice === "auto" ? !isThisMachine(url) : choice === "lz4", compression: choice };
}

function isThisMachine(url: string): boolean {
  if (url.startsWith("unix:")) return true;
  const { hostname } = new URL(url);
  return (
    hostname === "localhost" || hostname === "[::1]" || (isIP(hostname) === 4 && hostname.startsWith("127."))
  );
}
