import type { Duplex } from "node:stream";
import { MAX_HANDSHAKE_BYTES } from "./limits.js";

/**
 * Destroys a socket that sends more than a handshake takes. The WebSocket below would collect a message of the lane's full
 * length for someone who has proved nothing yet.
 * @returns ends the watch; to be called in the same turn in which the last handshake message is read.
 */
export function boundHandshake(socket: Duplex): () => void {
  let seenBytes = 0;
  let over = false;
  const count = (chunk: Buffer) => {
    seenBytes += chunk.length;
    if (!over && seenBytes > MAX_HANDSHAKE_BYTES) socket.destroy();
  };
  socket.on("data", count);
  return () => {
    over = true;
    socket.off("data", count);
  };
}
