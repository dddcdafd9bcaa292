import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { messageOf } from "../base/index.js";
import type { Network } from "./config.js";
import { GuestError } from "./errors.js";
import { COMMAND_DEADLINE_MS } from "./limits.js";

const run = promisify(execFile);

/**
 * The hardware address of a tap device's end at the host, always the same for a name. It begins with fe: a bridge whose own address nobody has set takes the lowest
 * one of its ports (Linux, net/bridge/br_stp_if.c), so a device's coming and going leaves that alone wherever there is another port, such as a network card.
 */
export function tapAddress(name: string): string {
  const digits = createHash("sha256").update(name).digest("hex").slice(0, 10);
  return ["fe", ...(digits.match(/../g) ?? [])].join(":");
}

/**
 * Connects a running emulator's tap device to its bridge. The emulator made the device itself, so that it vanishes with
 * the emulator whatever happens to the agent.
 * @throws GuestError `network-failed` with what ip(8) says.
 */
export async function connectTap(network: Network): Promise<void> {
  if (network.mode !== "tap") return;
  const { tap, bridge } = network;
  const master = bridge === undefined ? [] : ["master", bridge];
  try {
    await run("ip", ["link", "set", "dev", tap, "address", tapAddress(tap), ...master, "up"], {
      timeout: COMMAND_DEADLINE_MS,
      killSignal: "SIGKILL",
    });
  } catch (cause) {
    const target = bridge === undefined ? "" : ` to the bridge ${bridge}`;
    throw new GuestError(
      "network-failed",
      `the tap ${tap} could not be connected${target}: ${messageOf(cause).trim()}`,
      { cause },
    );
  }
}
