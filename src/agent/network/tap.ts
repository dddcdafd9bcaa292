import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { AgentError } from "../errors.js";
import { runCommand } from "./run-command.js";

/** Names a tap device of Ramet: with the ten digits that follow it fills Linux's 15 characters. */
const PREFIX = "ramet";
const NAME_DIGITS = 10;

/** A name for the tap device of a new emulator. Not from the guest's id: agents on one machine share its devices, and a migrated guest keeps its id. */
export function newTapName(): string {
  return PREFIX + randomBytes(NAME_DIGITS / 2).toString("hex");
}

/** The emulator makes its tap device and takes it along when it ends; it may be gone. */
function deviceExists(name: string): boolean {
  return existsSync(`/sys/class/net/${name}`);
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

/** @throws AgentError `network` when the host has no such bridge. */
export function requireBridge(bridge: string): void {
  if (existsSync(`/sys/class/net/${bridge}/bridge`)) return;
  throw new AgentError(
    "network",
    `this host has no bridge ${bridge}; make it with: ip link add ${bridge} type bridge && ip link set ${bridge} up`,
  );
}
