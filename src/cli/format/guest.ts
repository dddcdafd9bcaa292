import type { Forward, GuestIsolation, GuestNetwork, GuestView } from "../../control/index.js";
import { formatDiskDetails } from "./disk.js";
import { formatFields, formatTable } from "./table.js";
import { formatBytes, formatTime } from "./units.js";

/** `127.0.0.1:8080→80/tcp`, as short as it can be said. */
export function formatForward(forward: Forward): string {
  const protocol = forward.protocol === "tcp" ? "" : `/${forward.protocol}`;
  return `${forward.address}:${forward.hostPort}→${forward.guestPort}${protocol}`;
}

/** Where a guest is in the network, for people. */
export function formatNetwork(network: GuestNetwork): string {
  if (network.mode === "none") return "none";
  if (network.mode === "tap") return network.bridge === undefined ? "tap" : `tap on ${network.bridge}`;
  const forwards = network.forwards.map(formatForward).join(", ");
  return forwards === "" ? "user" : `user, ${forwards}`;
}

/** The guests of an agent as a table. */
export function formatGuests(guests: readonly GuestView[]): string[] {
  if (guests.length === 0) return ["no guests"];
  return formatTable(
    [
      { title: "NAME" },
      { title: "STATE" },
      { title: "ARCHITECTURE" },
      { title: "MEMORY", right: true },
      { title: "CPUS", right: true },
      { title: "PARENT" },
      { title: "NETWORK" },
    ],
    guests.map((guest) => [
      guest.name,
      guest.state,
      guest.architecture,
      formatBytes(guest.memoryBytes),
      String(guest.cpus),
      // With its host: a migrated guest has its parent's name.
      guest.parent === undefined ? "-" : `${guest.parent.guest} on ${guest.parent.host}`,
      formatNetwork(guest.network),
    ]),
  );
}

/** What holds, and then what does not. */
function formatIsolation(isolation: GuestIsolation): string {
  const holds: [string, boolean][] = [
    ["no capabilities", isolation.withoutCapabilities],
    ["no new privileges", isolation.noNewPrivileges],
    ["system calls filtered", isolation.systemCallFilter],
    ["files of its own", isolation.ownFiles],
  ];
  const has = holds.filter(([, is]) => is).map(([text]) => text);
  const lacks = holds.filter(([, is]) => !is).map(([text]) => text);
  const without = lacks.length === 0 ? "" : `; not: ${lacks.join(", ")}`;
  return `user ${isolation.user}, ${has.join(", ")}${without}`;
}

function formatLimits(limits: GuestIsolation["limits"]): string {
  const parts = [
    limits.memoryBytes === undefined ? "memory unlimited" : `memory ${formatBytes(limits.memoryBytes)}`,
    limits.tasks === undefined ? "tasks unlimited" : `${limits.tasks} tasks`,
    limits.cpuPercent === undefined ? "processors unlimited" : `${limits.cpuPercent} % of a processor`,
  ];
  return parts.join(", ");
}

function formatMemory({ memoryBytes, sharesWith, sharers }: GuestView): string {
  const from = sharesWith === undefined ? "" : `, shared with ${sharesWith} where neither has written`;
  const by = sharers === undefined ? "" : `, shared by ${sharers === 1 ? "1 child" : `${sharers} children`}`;
  return `${formatBytes(memoryBytes)}${from}${by}`;
}

function formatSuspended(suspended: NonNullable<GuestView["suspended"]>): string {
  const { stoppedAtMs, emulatorVersion, stateBytes, allocatedBytes } = suspended;
  const sizes = `${formatBytes(allocatedBytes)} of memory, ${formatBytes(stateBytes)} of device state`;
  return `since ${formatTime(stoppedAtMs)}, by emulator ${emulatorVersion}; ${sizes}`;
}

/** Everything an agent says of one guest. */
export function formatGuest(guest: GuestView): string[] {
  const mac = guest.network.mode === "none" ? undefined : guest.network.mac;
  const emulator =
    guest.emulatorVersion === undefined
      ? undefined
      : `${guest.emulatorVersion}${guest.pid === undefined ? "" : `, process ${guest.pid}`}`;
  return formatFields([
    ["name", guest.name],
    ["state", guest.message === undefined ? guest.state : `${guest.state} (${guest.message})`],
    ["id", guest.id],
    ["created", formatTime(guest.createdAtMs)],
    ["machine", `${guest.machine} (${guest.architecture})`],
    ["memory", formatMemory(guest)],
    ["suspended", guest.suspended && formatSuspended(guest.suspended)],
    ["cpus", String(guest.cpus)],
    ["emulator", emulator],
    ["isolation", guest.isolation && formatIsolation(guest.isolation)],
    ["limits", guest.isolation && formatLimits(guest.isolation.limits)],
    ["kernel", guest.kernel ?? "none, it boots from disk0"],
    ["initrd", guest.initrd],
    ["append", guest.append === "" ? undefined : guest.append],
    ["network", formatNetwork(guest.network)],
    ["mac", mac],
    ...(guest.disks ?? []).map((disk): [string, string] => [disk.name, formatDiskDetails(disk)]),
    [
      "parent",
      guest.parent && `${guest.parent.guest} on ${guest.parent.host}, transfer ${guest.parent.transfer}`,
    ],
    ["transfers", guest.transfers.length === 0 ? undefined : guest.transfers.join(", ")],
  ]);
}
