import { unreachable } from "../../base/index.js";
import type { Forward as ApiForward, GuestNetwork, PeerGuest } from "../../control/index.js";
import type { Forward, GuestConfig } from "../../guest/index.js";
import type { ChildSpec } from "../guests/child-spec.js";

type Network = GuestConfig["network"];

/** The address in a forward that means "where this host forwards": each host puts its own in its place. */
const DEFAULT_FORWARD_ADDRESS = "127.0.0.1";

/** A forward of the API as the emulator takes it on this host. */
export function forwardHere(forward: ApiForward, forwardAddress: string): Forward {
  const { address, ...rest } = forward;
  return { ...rest, host: address === DEFAULT_FORWARD_ADDRESS ? forwardAddress : address };
}

/** A forward of this host as the API has it. */
export function forwardForApi(forward: Forward): ApiForward {
  const { host, ...rest } = forward;
  return { ...rest, address: host };
}

/** A forward of this host as another host may be given it. */
function forwardForPeer(forward: Forward, forwardAddress: string): ApiForward {
  const { host, ...rest } = forward;
  return { ...rest, address: host === forwardAddress ? DEFAULT_FORWARD_ADDRESS : host };
}

/** A guest's network in listings. A device that leads nowhere is shown as user networking without forwards. */
export function networkView(network: Network): GuestNetwork {
  switch (network.mode) {
    case "none":
      return network;
    case "tap":
      return { mode: "tap", mac: network.mac, tap: network.tap, ...bridgeOf(network) };
    case "isolated":
      return { mode: "user", mac: network.mac, forwards: [] };
    case "user":
      return { mode: "user", mac: network.mac, forwards: network.forwards.map(forwardForApi) };
    default:
      return unreachable(network);
  }
}

/** The network of a child, as its host is told. */
export interface NetworkForPeer {
  network: GuestNetwork;
  attached: boolean;
}

/** A migrated guest takes its network along. */
export function networkOfMigrated(network: Network, forwardAddress: string): NetworkForPeer {
  switch (network.mode) {
    case "none":
      return { network, attached: true };
    case "isolated":
      return { network: { mode: "user", mac: network.mac, forwards: [] }, attached: false };
    case "user": {
      const forwards = network.forwards.map((forward) => forwardForPeer(forward, forwardAddress));
      return { network: { mode: "user", mac: network.mac, forwards }, attached: true };
    }
    case "tap":
      return { network: { mode: "tap", mac: network.mac, ...bridgeOf(network) }, attached: true };
    default:
      return unreachable(network);
  }
}

/**
 * A forked child has its parent's device, because the device state is that device's, on a cable that leads nowhere unless it is asked for.
 * Its own forwards need user networking, which is a network of its own behind the host, whatever else is on it.
 */
export function networkOfForked(
  network: Network,
  options: { attached: boolean; forwards: readonly ApiForward[] },
): NetworkForPeer {
  const migrated = networkOfMigrated(network, "");
  if (migrated.network.mode !== "user") return { ...migrated, attached: options.attached };
  return {
    network: { ...migrated.network, forwards: [...options.forwards] },
    attached: options.forwards.length > 0 || (options.attached && network.mode === "user"),
  };
}

/** What a child's emulator is started with, and the forwards it gets later. */
export function networkFromPeer(
  guest: Pick<PeerGuest, "network" | "attached">,
  forwardAddress: string,
): { network: ChildSpec["network"]; forwards: Forward[] } {
  const { network, attached } = guest;
  switch (network.mode) {
    case "none":
      return { network, forwards: [] };
    case "user":
      return attached
        ? {
            network: { mode: "user", mac: network.mac },
            forwards: network.forwards.map((forward) => forwardHere(forward, forwardAddress)),
          }
        : { network: { mode: "isolated", mac: network.mac }, forwards: [] };
    case "tap":
      return { network: { mode: "tap", mac: network.mac }, forwards: [] };
    default:
      return unreachable(network);
  }
}

/** `exactOptionalPropertyTypes` tells a field that is absent from one that is undefined. */
function bridgeOf(network: { bridge?: string | undefined }): { bridge?: string } {
  return network.bridge === undefined ? {} : { bridge: network.bridge };
}
