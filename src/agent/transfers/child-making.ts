import type { Holder, Identity } from "../../base/index.js";
import { AgentError } from "../errors.js";
import type { ChildSpec } from "../guests/child-spec.js";
import type { Guest } from "../guests/guest.js";
import type { GuestRecord } from "../guests/guest-record.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { requireFreePort } from "../network/ports.js";
import { requireBridge } from "../network/tap.js";
import { networkFromPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import type { PrepareParams } from "./hosted-child.js";

type PeerGuest = Omit<PrepareParams["guest"], "name">;

/** What a child of this host is made of, as far as its guest's record says so. */
type Making = Pick<PrepareParams, "guest" | "parent" | "transfer" | "kind">;

/** Which emulator fits a child of a peer's guest, or of a guest of this host. */
export function childSpecOf(services: Services, guest: PeerGuest, kind: PrepareParams["kind"]): ChildSpec {
  const { boot, configuration } = services;
  const file = ({ sha256 }: { sha256: string }) => ({ sha256, path: boot.path(sha256) });
  return {
    architecture: guest.architecture,
    machine: guest.machine,
    memoryBytes: guest.memoryBytes,
    cpus: guest.cpus,
    append: guest.append,
    ...(guest.kernel === undefined ? {} : { kernel: file(guest.kernel) }),
    ...(guest.initrd === undefined ? {} : { initrd: file(guest.initrd) }),
    network: networkFromPeer(guest, configuration.forwardAddress).network,
    // A fork's child is somebody else, and must find that out; a migrated guest is who it was.
    ...(kind === "migrate" && guest.vmgenid !== undefined ? { vmgenid: guest.vmgenid } : {}),
    ...(kind === "migrate" && guest.id !== undefined ? { id: guest.id } : {}),
  };
}

/** Which emulator fits a child that shares the memory of a guest of this host. */
export function sharingSpecOf(services: Services, parent: Guest, child: PeerGuest): ChildSpec {
  return { ...childSpecOf(services, child, "fork"), shares: parent.id };
}

/** The record of a guest that is to be a child, in an emulator that waits for its device state. */
export function childRecordOf(
  services: Services,
  making: Making,
  { live, holder }: { live: LiveEmulator; holder?: Holder },
): GuestRecord {
  const { guest, parent, transfer, kind } = making;
  const file = (bootFile: { sha256: string; sizeBytes: number }) => ({
    ...bootFile,
    source: services.boot.path(bootFile.sha256),
  });
  return {
    version: 1,
    state: "receiving",
    createdAtMs: services.clock.wallMs(),
    parent: {
      guest: parent.guest,
      host: parent.host,
      ...idOf(services, parent, kind),
      transfer,
      kind,
      ...(holder === undefined ? {} : { holder }),
    },
    attached: guest.attached,
    boot: {
      ...(guest.kernel === undefined ? {} : { kernel: file(guest.kernel) }),
      ...(guest.initrd === undefined ? {} : { initrd: file(guest.initrd) }),
    },
    config: { ...live.startedWith, name: guest.name, network: networkOf(services, guest, live) },
  };
}

/** Of a fork's parent on this host, by which it is found when it has another name. */
function idOf(
  { configuration, registry }: Services,
  { guest, host }: Making["parent"],
  kind: Making["kind"],
): { id?: string } {
  const parent = kind === "fork" && host === configuration.name ? registry.byName(guest) : undefined;
  return parent === undefined ? {} : { id: parent.id };
}

/** @throws AgentError when a child could not have the network it is to have. */
export async function requireNetworkOf(
  services: Services,
  { guest, kind }: { guest: PeerGuest; kind: PrepareParams["kind"] },
): Promise<void> {
  if (guest.network.mode === "tap" && guest.attached && guest.network.bridge !== undefined)
    requireBridge(guest.network.bridge);
  // A migrated guest's ports are its parent's until that stops, which may be on this very machine.
  if (kind === "migrate") return;
  const { configuration, isolation } = services;
  const { forwards } = networkFromPeer(guest, configuration.forwardAddress);
  for (const forward of forwards) await requireFreePort(forward, { confined: isolation.confines });
}

/** The emulator's network, with what it is connected to later. */
function networkOf(
  services: Services,
  guest: PeerGuest,
  live: LiveEmulator,
): GuestRecord["config"]["network"] {
  const { network } = live.startedWith;
  if (network.mode === "user") {
    return { ...network, forwards: networkFromPeer(guest, services.configuration.forwardAddress).forwards };
  }
  if (
    network.mode !== "tap" ||
    guest.network.mode !== "tap" ||
    !guest.attached ||
    guest.network.bridge === undefined
  )
    return network;
  return { ...network, bridge: guest.network.bridge };
}

/** A path is this machine's, whoever names it: only this agent may name its own. @throws AgentError `bad-request`. */
export function requireParentUrl({ configuration }: Services, parentUrl: string, asking: Identity): void {
  const isOwn = asking.kind === "local" && parentUrl === `unix:${configuration.socket}`;
  if (isOwn || !parentUrl.startsWith("unix:")) return;
  throw new AgentError("bad-request", `${parentUrl} is not where a peer sends a child's memory from`);
}
