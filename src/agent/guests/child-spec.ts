import { randomBytes, randomUUID } from "node:crypto";
import { unreachable } from "../../base/index.js";
import type { GuestConfig } from "../../guest/index.js";
import { newTapName } from "../network/tap.js";

/**
 * All that decides whether a warm emulator can become a certain child: what is on its command line, less what is its own anyway (uuid, paths, tap
 * device). Forwards are none, since they can be added later.
 */
export interface ChildSpec {
  architecture: GuestConfig["architecture"];
  machine: string;
  memoryBytes: number;
  cpus: number;
  append: string;
  kernel?: { sha256: string; path: string };
  initrd?: { sha256: string; path: string };
  network:
    | { mode: "none" }
    | { mode: "isolated"; mac: string }
    | { mode: "user"; mac: string }
    | { mode: "tap"; mac: string };
  /** Its disks, the newest layer of each its own; absent for none. No warm emulator has them. */
  disks?: GuestConfig["disks"];
  /** The id a migrated guest keeps, or that layers were made for; no warm emulator has it. */
  id?: string;
  /** The id of the guest on this host whose memory it maps privately. */
  shares?: string;
  /** The identity a migrated guest keeps. Without it the emulator has a new one, as a fork's child must. */
  vmgenid?: string;
}

/** Two specs with the same key fit the same warm emulators. */
export function specKey(spec: ChildSpec): string {
  const {
    architecture,
    machine,
    memoryBytes,
    cpus,
    append,
    kernel,
    initrd,
    network,
    vmgenid,
    id,
    shares,
    disks,
  } = spec;
  return JSON.stringify([
    architecture,
    machine,
    memoryBytes,
    cpus,
    append,
    kernel?.sha256,
    initrd?.sha256,
    network.mode,
    network.mode === "none" ? undefined : network.mac,
    vmgenid,
    id,
    shares,
    disks?.map(({ chain }) => chain[0]?.id),
  ]);
}

/** The configuration of a new emulator for such a child, with identities of its own. */
export function configOf(spec: ChildSpec, name: string): GuestConfig {
  const { network } = spec;
  return {
    id: spec.id ?? randomUUID(),
    name,
    architecture: spec.architecture,
    machine: spec.machine,
    accelerator: "tcg",
    memoryBytes: spec.memoryBytes,
    cpus: spec.cpus,
    ...(spec.kernel === undefined ? {} : { kernel: spec.kernel.path }),
    ...(spec.initrd === undefined ? {} : { initrd: spec.initrd.path }),
    append: spec.append,
    network: networkOf(network),
    disks: spec.disks ?? [],
    ...(spec.architecture === "x86_64" ? { vmgenid: spec.vmgenid ?? randomUUID() } : {}),
  };
}

function networkOf(network: ChildSpec["network"]): GuestConfig["network"] {
  switch (network.mode) {
    case "none":
    case "isolated":
      return network;
    case "user":
      return { mode: "user", mac: network.mac, forwards: [] };
    case "tap":
      // On no bridge yet: the guest is not to be met there before it runs.
      return { mode: "tap", mac: network.mac, tap: newTapName() };
    default:
      return unreachable(network);
  }
}

/** A random hardware address with QEMU's prefix. */
export function randomMac(): string {
  return `52:54:00:${randomBytes(3).toString("hex").match(/../g)?.join(":") ?? "00:00:00"}`;
}
