import { withDeadline, type Clock } from "../base/index.js";
import { connectToEmulator } from "./own-socket.js";

/**
 * Writes a device state to the socket on which an emulator waits for it. Resolves when the emulator has ended the connection: it has
 * then read what it wanted, well or badly. Rejects with the socket's error or DeadlineError.
 */
export async function sendDeviceState(options: {
  path: string;
  state: Uint8Array;
  clock: Clock;
  deadlineMs: number;
}): Promise<void> {
  const socket = connectToEmulator(options.path);
  const sent = new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.once("close", () => resolve());
  });
  socket.resume();
  socket.end(options.state);
  try {
    await withDeadline(options.clock, options.deadlineMs, "the reading of the device state", sent);
  } finally {
    socket.destroy();
  }
}
