import { randomBytes } from "node:crypto";
import { existsSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { AgentError } from "../errors.js";
import { feedCommand, runCommand } from "./run-command.js";

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

/**
 * Puts tap devices where they are to be, on a bridge or on none, by one run of ip(8): those that leave a bridge do so first, and with each its address is forgotten there, so that what comes
 * next for it goes to whoever has come. One that is there already is not touched.
 * @throws AgentError `network`; some are at their new places then.
 */
export async function placeTaps(
  taps: readonly { tap: string; bridge?: string | undefined }[],
): Promise<void> {
  const moving = taps.filter(({ tap, bridge }) => deviceExists(tap) && bridgeOf(tap) !== bridge);
  for (const { bridge } of moving) if (bridge !== undefined) requireBridge(bridge);
  const leave = moving.filter(({ tap }) => bridgeOf(tap) !== undefined);
  const lines = [
    ...leave.map(({ tap }) => `link set dev ${tap} nomaster`),
    ...moving.flatMap(({ tap, bridge }) =>
      bridge === undefined ? [] : [`link set dev ${tap} master ${bridge}`],
    ),
  ];
  if (lines.length > 0) await feedCommand(`${lines.join("\n")}\n`, "ip", "-batch", "-");
}

/** The bridge a device is on. */
function bridgeOf(name: string): string | undefined {
  try {
    return basename(readlinkSync(`/sys/class/net/${name}/master`));
  } catch {
    return undefined;
  }
}

/** @throws AgentError `network` when the host has no such bridge. */
export function requireBridge(bridge: string): void {
  if (existsSync(`/sys/class/net/${bridge}/bridge`)) return;
  throw new AgentError(
    "network",
    `this host has no bridge ${bridge}; make it with: ip link add ${bridge} type bridge && ip link set ${bridge} up`,
  );
}
