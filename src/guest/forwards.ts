import { forwardRule, NETWORK_BACKEND } from "./command-line.js";
import type { Forward } from "./config.js";
import { GuestError } from "./errors.js";
import type { QmpClient } from "./qmp.js";

/** Has the emulator listen on a port of the host. @throws GuestError `command-failed` with its reason. */
export async function addForward(qmp: QmpClient, forward: Forward): Promise<void> {
  // Silence is success for this command.
  const answer = await qmp.executeHuman(`hostfwd_add ${NETWORK_BACKEND} ${forwardRule(forward)}`);
  if (answer.trim() !== "")
    throw new GuestError("command-failed", `port ${forward.hostPort} is not forwarded: ${answer.trim()}`);
}

/** Takes `addForward` back. @throws GuestError `command-failed` with the emulator's reason. */
export async function removeForward(qmp: QmpClient, forward: Forward): Promise<void> {
  const rule = `${forward.protocol}:${forward.host}:${forward.hostPort}`;
  const answer = await qmp.executeHuman(`hostfwd_remove ${NETWORK_BACKEND} ${rule}`);
  if (!answer.includes("removed"))
    throw new GuestError("command-failed", `port ${forward.hostPort} stays forwarded: ${answer.trim()}`);
}
