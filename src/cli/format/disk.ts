import type { ArrivalView, ChainOutcome, DiskView, GuestDiskView, LoanView } from "../../control/index.js";
import { formatTable } from "./table.js";
import { formatBytes, formatTime, formatUs, plural } from "./units.js";

/** How many digits tell images apart for people. */
const SHOWN_DIGITS = 12;

type Layer = GuestDiskView["chain"][number];

/** A layer as people read it: uuids whole, because commands take them, digests shortened. */
export function formatLayer({ kind, id, arriving }: Layer): string {
  const name = kind === "image" ? `image ${id.slice(0, SHOWN_DIGITS)}` : id;
  return arriving === undefined ? name : `${name} (${formatArrival(arriving)})`;
}

/** How far something is that is on its way. */
export function formatArrival({ host, hereBytes, fileBytes, message }: ArrivalView): string {
  const percent = fileBytes === 0 ? "" : `, ${Math.floor((100 * hereBytes) / fileBytes)} %`;
  return `coming from ${host}${percent}${message === undefined ? "" : `, waiting: ${message}`}`;
}

/** A guest's disk but for its name: what is written, and on what that stands. */
export function formatDiskDetails({ sizeBytes, cache, iops, bps, chain }: GuestDiskView): string {
  const limits = [
    ...(iops === undefined ? [] : [`${iops} requests/s`]),
    ...(bps === undefined ? [] : [`${formatBytes(bps)}/s`]),
    ...(cache === "writeback" ? [] : ["past the page cache"]),
  ];
  return [formatBytes(sizeBytes), ...limits, chain.map(formatLayer).join(" over ")].join(", ");
}

/** A guest's disk in one line. */
export function formatGuestDisk(disk: GuestDiskView): string {
  return `${disk.name}  ${formatDiskDetails(disk)}`;
}

/** The differencing disks of a host as a table. */
export function formatDisks(disks: readonly DiskView[]): string[] {
  if (disks.length === 0) return ["no disks"];
  return formatTable(
    [
      { title: "DISK" },
      { title: "OVER" },
      { title: "SIZE", right: true },
      { title: "USED", right: true },
      { title: "STATE" },
      { title: "CREATED" },
    ],
    disks.map((disk) => [
      disk.id,
      disk.parent === undefined ? "-" : formatLayer(disk.parent),
      formatBytes(disk.sizeBytes),
      formatBytes(disk.usedBytes),
      formatUse(disk),
      formatTime(disk.createdAtMs),
    ]),
  );
}

function formatUse({ frozen, children, guest, arriving, sharedAt, home }: DiskView): string {
  if (arriving !== undefined) {
    const { host, hereBytes, fileBytes, message } = arriving;
    const why = message === undefined ? "" : `, ${message}`;
    return `coming from ${host}, ${formatBytes(hereBytes)} of ${formatBytes(fileBytes)}${why}`;
  }
  if (sharedAt !== undefined) {
    const who = guest === undefined ? "frozen" : `written by ${guest}`;
    return `${who}, lies in ${sharedAt}${home === undefined ? "" : formatHome(home)}`;
  }
  if (frozen) return `frozen, ${children === 1 ? "1 disk" : `${children} disks`} on it`;
  return guest === undefined ? "unused" : `written by ${guest}`;
}

function formatHome({ hereBytes, fileBytes, message }: NonNullable<DiskView["home"]>): string {
  const far = fileBytes === 0 ? "" : `, ${formatBytes(hereBytes)} of ${formatBytes(fileBytes)} copied`;
  return `${far}${message === undefined ? "" : `, waiting: ${message}`}`;
}

/** What came of a disk that was flattened or committed. */
export function formatChainOutcome(outcome: ChainOutcome): string[] {
  const { disk, layersBefore, chain, copiedBytes, pauseUs, message } = outcome;
  if (message !== undefined) return [message];
  const shown = chain.map(formatLayer).join(" over ");
  if (layersBefore === chain.length) return [`${disk} is as short as it can be: ${shown}`];
  const pause = pauseUs === undefined ? "" : `, and the guest stood still for ${formatUs(pauseUs)}`;
  return [
    `${disk} has ${plural(chain.length, "layer")} in place of ${layersBefore}: ${shown}`,
    `${formatBytes(copiedBytes)} were looked at${pause}`,
  ];
}

/** What other hosts have on loan, as a table. */
export function formatLoans(loans: readonly LoanView[]): string[] {
  if (loans.length === 0) return ["no other host has disks on loan"];
  return formatTable(
    [{ title: "DISK" }, { title: "TRANSFER", right: true }, { title: "HOST" }],
    loans.map(({ disk, transfer, host }) => [disk, String(transfer), host]),
  );
}
