import { closeSync, constants, fstatSync, openSync, statSync } from "node:fs";
import { connect, Socket } from "node:net";
import { dirname } from "node:path";

/** open(2): a descriptor that only stands for the file. Node.js does not name it; the number is the same on x86-64 and Arm. */
const O_PATH = 0o10000000;

/**
 * Connects to a socket of an emulator. Its directory belongs to the emulator's user, which could have put a link to somebody else's socket
 * in its place; root must not be led there. So the file is pinned first, and must be a socket of the directory's owner.
 * What is wrong is told by the socket's `error` event, as with connect.
 */
export function connectToEmulator(path: string): Socket {
  const pinned = pin(path);
  if (pinned instanceof Error) {
    return new Socket().destroy(pinned);
  }
  const socket = connect(`/proc/self/fd/${pinned}`);
  const letGo = (): void => {
    socket.off("connect", letGo);
    socket.off("close", letGo);
    closeSync(pinned);
  };
  socket.once("connect", letGo);
  socket.once("close", letGo);
  return socket;
}

/** A descriptor for the socket, or why there is none. */
function pin(path: string): number | Error {
  let descriptor: number;
  try {
    descriptor = openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    return error as Error;
  }
  const found = fstatSync(descriptor);
  if (found.isSocket() && found.uid === statSync(dirname(path)).uid) return descriptor;
  closeSync(descriptor);
  return new Error(`${path} is not a socket of the emulator's user`);
}
