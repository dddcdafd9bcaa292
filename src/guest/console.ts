import { messageOf, withDeadline, type Clock } from "../base/index.js";
import type { Console } from "./emulator.js";
import { GuestError } from "./errors.js";
import { COMMAND_DEADLINE_MS } from "./limits.js";
import { connectToEmulator } from "./own-socket.js";

/**
 * Opens a guest's serial console. `onEnd` is called once, when either side has closed it.
 * @throws GuestError `gone`.
 */
export async function openConsole(options: {
  guest: string;
  path: string;
  clock: Clock;
  onData(bytes: Uint8Array): void;
  onEnd(): void;
}): Promise<Console> {
  const socket = connectToEmulator(options.path);
  const connected = new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  try {
    await withDeadline(options.clock, COMMAND_DEADLINE_MS, "the opening of the console", connected);
  } catch (cause) {
    socket.destroy();
    const message = `the console of ${options.guest} cannot be opened: ${messageOf(cause)}`;
    throw new GuestError("gone", message, { cause });
  }
  // A failure is followed by the close, which is what is told.
  socket.on("error", () => {});
  socket.once("close", () => options.onEnd());
  socket.on("data", (chunk) => options.onData(chunk));
  return { write: (bytes) => void socket.write(bytes), close: () => void socket.destroy() };
}
