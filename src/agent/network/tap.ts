import { existsSync, readdirSync } from "node:fs";
import { AgentError } from "../errors.js";
import { runCommand } from "./run-command.js";

/** Names a tap device of Ramet: with the ten digits that follow it fills Linux's 15 characters. */
const PREFIX = "ramet";
const NAME_DIGITS = 10;

/** Name of the tap device of an emulator, from its directory's uuid. */
export function tapName(uuid: string): string {
  return PREFIX + uuid.replaceAll("-", "").slice(0, NAME_DIGITS);
}

/** Whether a network device of this name exists. */
export function deviceExists(name: string): boolean {
  return existsSync(`/sys/class/net/${name}`);
}

/**
 * Makes a tap device, up, on no bridge yet.
 * @throws AgentError `network`.
 */
export async function createTap(name: string): Promise<void> {
  if (deviceExists(name)) await deleteTap(name);
  await runCommand("ip", "tuntap", "add", "dev", name, "mode", "tap");
  try {
    await runCommand("ip", "link", "set", "dev", name, "up");
  } catch (error) {
    await deleteTap(name);
    throw error;
  }
}

/** Puts a tap device on a bridge. @throws AgentError `network`, naming a bridge that is missing. */
export async function attachTap(name: string, bridge: string): Promise<void> {
  requireBridge(bridge);
  await runCommand("ip", "link", "set", "dev", name, "master", bridge);
}

/** Takes a tap device off its bridge; the guest's link stays up, its packets go nowhere. */
export async function detachTap(name: string): Promise<void> {
  if (deviceExists(name)) await runCommand("ip", "link", "set", "dev", name, "nomaster");
}

/** Deletes a tap device; one that is gone is fine. */
export async function deleteTap(name: string): Promise<void> {
  if (deviceExists(name)) await runCommand("ip", "tuntap", "del", "dev", name, "mode", "tap");
}

/** @throws AgentError `network` when the host has no such bridge. */
export function requireBridge(bridge: string): void {
  if (existsSync(`/sys/class/net/${bridge}/bridge`)) return;
  throw new AgentError(
    "network",
    `this host has no bridge ${bridge}; make it with: ip link add ${bridge} type bridge && ip link set ${bridge} up`,
  );
}

/** The tap devices of Ramet that this machine has, for finding what a crash left. */
export function listTaps(): string[] {
  const pattern = new RegExp(`^${PREFIX}[0-9a-f]{${NAME_DIGITS}}$`);
  return readdirSync("/sys/class/net").filter((name) => pattern.test(name));
}
