import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { messageOf } from "../base/index.js";
import type { Network } from "./config.js";
import { GuestError } from "./errors.js";
import { COMMAND_DEADLINE_MS } from "./limits.js";

const run = promisify(execFile);

/**
 * Connects a running emulator's tap device to its bridge. The emulator made the device itself, so that it vanishes with
 * the emulator whatever happens to the agent.
 * @throws GuestError `network-failed` with what ip(8) says.
 */
export async function connectTap(network: Network): Promise<void> {
  if (network.mode !== "tap") return;
  const options = { timeout: COMMAND_DEADLINE_MS, killSignal: "SIGKILL" } as const;
  try {
    if (network.bridge !== undefined)
      await run("ip", ["link", "set", "dev", network.tap, "master", network.bridge], options);
    await run("ip", ["link", "set", "dev", network.tap, "up"], options);
  } catch (cause) {
    const target = network.bridge === undefined ? "" : ` to the bridge ${network.bridge}`;
    throw new GuestError(
      "network-failed",
      `the tap ${network.tap} could not be connected${target}: ${messageOf(cause).trim()}`,
      { cause },
    );
  }
}
