import { unreachable } from "../../base/index.js";
import type { Network } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";

/** What the world knows a guest by, and what of that it has to itself: its device's address and tap, which stay with it. */
export interface Role {
  id: string;
  name: string;
  network: Network;
  attached: boolean;
}

/** Of two guests: the one that has production, or is to give it up, first. */
export type Roles = readonly [Role, Role];

export function roleOf({ id, name, config, record }: Guest): Role {
  return { id, name, network: config.network, attached: record.attached };
}

/** Each guest with the other one's name and place. */
export function exchanged([one, other]: Roles): Roles {
  return [inRoleOf(one, other), inRoleOf(other, one)];
}

function inRoleOf({ id, network }: Role, other: Role): Role {
  return { id, name: other.name, network: atPlaceOf(network, other.network), attached: other.attached };
}

/** A guest's own device at the place of another one's of the same kind. */
function atPlaceOf(own: Network, other: Network): Network {
  switch (own.mode) {
    case "none":
    case "isolated":
      return own;
    case "user":
      return { ...own, forwards: other.mode === "user" ? other.forwards : own.forwards };
    case "tap": {
      const { bridge } = other.mode === "tap" ? other : own;
      return { mode: own.mode, mac: own.mac, tap: own.tap, ...(bridge === undefined ? {} : { bridge }) };
    }
    default:
      return unreachable(own);
  }
}

/** How the kinds of network are called in what is said to people. */
const KINDS: { readonly [Mode in Network["mode"]]: string } = {
  none: "no network device",
  isolated: "a device that leads nowhere",
  user: "user networking",
  tap: "a tap device",
};

/**
 * Looks whether two guests' places in the network can be exchanged: they are of one kind, and what is reached there, the hardware address and with it what the guest itself has set, is the same.
 * @throws AgentError `refused`, saying what is in the way and what to do.
 */
export function requireExchangeable(one: Role, other: Role): void {
  const { mode } = one.network;
  if (mode !== other.network.mode) throw refused(one, other, differentKinds(one, other));
  if (one.network.mode === "none" || other.network.mode === "none") return;
  if (one.network.mac !== other.network.mac) {
    const macs = `${one.network.mac} and ${other.network.mac}`;
    throw refused(
      one,
      other,
      `their devices have different addresses (${macs}), so they are not guests of one fork, and whoever asks one would not find the other`,
    );
  }
  if (one.network.mode !== "tap" || other.network.mode !== "tap") return;
  const { bridge } = one.network;
  if (bridge !== other.network.bridge) return;
  const where =
    bridge === undefined
      ? "both are on no bridge, so where their devices lead was decided by hand"
      : `both are on the bridge ${bridge} already, so what tells them apart was set inside them`;
  throw refused(one, other, `${where}, and cannot be exchanged from here`);
}

function differentKinds(one: Role, other: Role): string {
  const kinds = `${one.name} has ${KINDS[one.network.mode]}, and ${other.name} has ${KINDS[other.network.mode]}`;
  const isolated = [one, other].find(({ network }) => network.mode === "isolated");
  return isolated === undefined
    ? kinds
    : `${kinds}: the emulator of ${isolated.name} was started apart from the host's network and cannot be given ports; fork with --forward or --network attached`;
}

function refused(one: Role, other: Role, why: string): AgentError {
  return new AgentError("refused", `${one.name} and ${other.name} cannot exchange their roles: ${why}`);
}
