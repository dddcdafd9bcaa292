import { codeOf, messageOf } from "../../base/index.js";
import type { Emulator, Forward, GuestConfig } from "../../guest/index.js";
import { attachTap, detachTap } from "./tap.js";

/**
 * Connects a running emulator to its network: forwarded ports, or the tap device on its bridge. What is left of an earlier connection, such as when an agent
 * ended while it was taken back, does no harm.
 * @throws AgentError or GuestError; what was connected before the failure is disconnected again.
 */
export async function connectGuest(emulator: Emulator, network: GuestConfig["network"]): Promise<void> {
  if (network.mode === "tap" && network.bridge !== undefined) await attachTap(network.tap, network.bridge);
  if (network.mode !== "user") return;
  const added: Forward[] = [];
  try {
    for (const forward of network.forwards) {
      await addAnew(emulator, forward);
      added.push(forward);
    }
  } catch (error) {
    for (const forward of added) await emulator.removeForward(forward);
    throw error;
  }
}

/**
 * Connects a guest that must run on in any case: one that runs without its network can be helped, one that stays stopped because of it serves nobody.
 * @returns what is wrong with its network, in words; undefined when nothing is.
 */
export async function connectOrGoWithout(
  emulator: Emulator,
  network: GuestConfig["network"],
): Promise<string | undefined> {
  try {
    await connectGuest(emulator, network);
    return undefined;
  } catch (error) {
    if (codeOf(error) === "gone") throw error;
    return `it runs, but not at its place in the network: ${messageOf(error)}`.slice(0, 500);
  }
}

/** The emulator refuses a port it forwards already like one that is taken by somebody else. */
export async function addAnew(emulator: Emulator, forward: Forward): Promise<void> {
  try {
    await emulator.addForward(forward);
  } catch (error) {
    try {
      await emulator.removeForward(forward);
    } catch {
      throw error;
    }
    await emulator.addForward(forward);
  }
}

/** Takes a guest off its network, so that another one can take its place there. */
export async function disconnectGuest(emulator: Emulator, network: GuestConfig["network"]): Promise<void> {
  if (network.mode === "tap") await detachTap(network.tap);
  if (network.mode !== "user") return;
  for (const forward of network.forwards) await emulator.removeForward(forward);
}
