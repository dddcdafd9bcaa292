import type { ParamsInput, TransferKind } from "../../control/index.js";
import { peerDisksOf } from "../disks/far-disks.js";
import type { Guest } from "../guests/guest.js";
import type { NetworkForPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import type { ParentRecord } from "./transfer-record.js";

type PrepareParams = ParamsInput<"peer.prepare">;

/** What the child's host is told to make it of; all but the child's name. */
export function prepareParams(options: {
  services: Services;
  guest: Guest;
  record: Readonly<ParentRecord>;
  network: NetworkForPeer;
  precopy?: boolean;
  writes?: PrepareParams["writes"];
}): Omit<PrepareParams, "guest"> & { guest: Omit<PrepareParams["guest"], "name"> } {
  const { services, guest, record, network } = options;
  const { transfer, token, kind, verify, paused } = record;
  const isFar = !services.peers.isSelf(record.url);
  return {
    transfer,
    token,
    kind,
    guest: peerGuestOf(guest, network, kind),
    parent: { guest: guest.name, host: services.configuration.name },
    emulatorVersion: guest.live.emulator.version,
    parentUrl: services.peers.ownUrlFor(record.url),
    pageCount: guest.live.memory.pageCount,
    verify,
    paused,
    precopy: options.precopy === true,
    ...(isFar && guest.config.disks.length > 0 ? { disks: peerDisksOf(services, guest) } : {}),
    ...(options.writes === undefined ? {} : { writes: options.writes }),
    ...(kind === "migrate" ? { leaseMs: services.configuration.limits.migrationLeaseSeconds * 1000 } : {}),
  };
}

/** A guest as another host must know it to make an emulator for it; all but the child's name. */
export function peerGuestOf(
  guest: Guest,
  network: NetworkForPeer,
  kind: TransferKind,
): Omit<ParamsInput<"peer.prepare">["guest"], "name"> {
  const { config, record } = guest;
  const bootFile = ({ sha256, sizeBytes }: { sha256: string; sizeBytes: number }) => ({ sha256, sizeBytes });
  return {
    architecture: config.architecture,
    machine: config.machine,
    memoryBytes: config.memoryBytes,
    cpus: config.cpus,
    append: config.append,
    ...(record.boot.kernel === undefined ? {} : { kernel: bootFile(record.boot.kernel) }),
    ...(record.boot.initrd === undefined ? {} : { initrd: bootFile(record.boot.initrd) }),
    ...network,
    // A migrated guest is who it was; a fork's child is somebody else, and must find that out.
    ...(kind === "migrate" ? { id: guest.id } : {}),
    ...(kind === "migrate" && config.vmgenid !== undefined ? { vmgenid: config.vmgenid } : {}),
  };
}
