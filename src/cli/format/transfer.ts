import { PAGE_BYTES } from "../../base/index.js";
import type { ChildOutcome, PauseParts, TransferView } from "../../control/index.js";
import { formatBar } from "./bar.js";
import { formatTable } from "./table.js";
import { printable } from "./text.js";
import { formatBytes, formatMs, formatRate, formatShare, formatUs, plural } from "./units.js";

/** Bytes each second over the page lanes. */
export interface Rates {
  urgent: number;
  bulk: number;
}

/** `web → web-1 on hostb`, from either side. */
export function formatRoute(view: TransferView): string {
  if (view.role === "child") return printable(`${view.peerGuest} on ${view.host} → ${view.guest}`);
  return printable(`${view.guest} → ${view.peerGuest} on ${view.host}`);
}

/** The transfers of an agent as a table. */
export function formatTransfers(transfers: readonly TransferView[]): string[] {
  if (transfers.length === 0) return ["no transfers"];
  return formatTable(
    [
      { title: "ID", right: true },
      { title: "KIND" },
      { title: "ROLE" },
      { title: "GUESTS" },
      { title: "PHASE" },
      { title: "MEMORY", right: true },
      { title: "TO COME", right: true },
      { title: "PAUSE", right: true },
      { title: "FIRST", right: true },
      { title: "TIME", right: true },
    ],
    transfers.map((view) => [
      String(view.id),
      view.kind,
      view.role,
      formatRoute(view),
      `${view.phase}${formatWaiting(view)}`,
      formatShare(view.pages.received, view.pages.total),
      formatBytes(bytesToCome(view)),
      view.pauseUs === undefined ? "-" : formatUs(view.pauseUs),
      view.firstInstructionUs === undefined ? "-" : formatUs(view.firstInstructionUs),
      formatMs(view.elapsedMs),
    ]),
  );
}

/** What of its disks a migrated child's host has still to get. */
function formatDisks({ disks }: TransferView): string {
  if (disks === undefined) return "";
  const { hereBytes, fileBytes, message } = disks;
  const why = message === undefined ? "" : ` (${message})`;
  return printable(`, disks ${formatShare(hereBytes, fileBytes)} of ${formatBytes(fileBytes)}${why}`);
}

/** `, waiting for hostb, 12 s` while the page lanes are away. */
function formatWaiting({ link, host, startedAtMs, elapsedMs }: TransferView): string {
  if (link?.state !== "reconnecting") return "";
  const waitedMs = Math.max(0, startedAtMs + elapsedMs - link.sinceMs);
  return printable(`, waiting for ${host}, ${Math.floor(waitedMs / 1000)} s`);
}

/** Why it waits or failed, or what is going on. */
function reasonOf(view: TransferView): string | undefined {
  const lost = view.link?.state === "reconnecting" ? view.link.why : undefined;
  return view.error?.message ?? lost ?? view.message;
}

/** Guest memory that the child does not have yet. */
function bytesToCome(view: TransferView): number {
  return Math.max(0, view.pages.total - view.pages.received) * PAGE_BYTES;
}

/** `stop 200 µs, save 900 µs`: the parts as the agent names them; those without `Us` at the end are counts. */
export function formatParts(parts: PauseParts): string {
  return Object.entries(parts)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => {
      const word = printable(name.replace(/Us$/, "")).replaceAll(
        /[A-Z]/g,
        (letter) => ` ${letter.toLowerCase()}`,
      );
      return `${word} ${name.endsWith("Us") ? formatUs(value) : value}`;
    })
    .join(", ");
}

/** How one child came out, when its fork or migration is answered. */
export function formatOutcome(child: ChildOutcome): string[] {
  const where = printable(`${child.guest} on ${child.host}`);
  if (child.state === "failed") {
    return [printable(`${where} failed: ${child.error?.message ?? "no reason was given"}`)];
  }
  const lines = [
    `${where} ${child.state === "paused" ? "is loaded and held" : "runs"} (transfer ${child.transfer})`,
  ];
  if (child.pauseUs !== undefined) {
    const parts = child.pauseParts === undefined ? "" : formatParts(child.pauseParts);
    lines.push(`  parent paused      ${formatUs(child.pauseUs)}${parts === "" ? "" : ` (${parts})`}`);
  }
  if (child.firstInstructionUs !== undefined) {
    lines.push(`  first instruction  ${formatUs(child.firstInstructionUs)} after the command`);
  }
  return lines;
}

/** How one transfer ended. */
export function formatEnd(view: TransferView): string[] {
  if (view.phase !== "complete") {
    const why = view.error?.message ?? view.message ?? "no reason was given";
    return [printable(`${formatRoute(view)} ${view.phase}: ${why}`)];
  }
  const lines = [
    `${formatRoute(view)} complete after ${formatMs(view.elapsedMs)}`,
    ...(view.shared === undefined ? formatSent(view) : formatShared(view, view.shared)),
  ];
  if (view.relay) lines.push(`  relay              ${formatRelay(view.relay)}`);
  if (view.workingSet && view.workingSet.pages > 0)
    lines.push(
      `  working set        ${view.workingSet.sent} of ${plural(view.workingSet.pages, "page")} sent ahead`,
    );
  if (view.faults && view.faults.count > 0) lines.push(`  faults             ${formatFaults(view.faults)}`);
  if (view.verify) {
    const { checked, mismatches } = view.verify;
    const verdict = mismatches === 0 ? "all as at the instant of the fork" : `${mismatches} DIFFER`;
    lines.push(`  verified           ${plural(checked, "page")}, ${verdict}`);
  }
  return lines;
}

function formatRelay({ from, pages, to, passedOn, dropped }: NonNullable<TransferView["relay"]>): string {
  if (from !== undefined) return printable(`the child on ${from} passed on to this one`);
  const lost = (dropped ?? 0) > 0 ? `, ${dropped} left to the parent` : "";
  const given = (pages ?? 0) > 0 ? [`${pages} pages came by another child`] : [];
  const passed = (passedOn ?? 0) > 0 || (to ?? 0) > 0 ? [`${passedOn ?? 0} passed on${lost}`] : [];
  return [...given, ...passed].join("; ") || "nothing came by another child";
}

function formatSent({ pages, bytes }: TransferView): string[] {
  return [
    `  pages              ${pages.total}: ${pages.fault} by fault, ${pages.push} by push, ${pages.sweep} by sweep; ${pages.zero} of them zero`,
    `  sent               ${formatBytes(bytes.urgent)} urgent, ${formatBytes(bytes.bulk)} bulk`,
  ];
}

function formatShared({ pages, guest }: TransferView, shared: number): string[] {
  return [`  pages              ${pages.total}: ${shared} shared with ${printable(guest)}, none sent`];
}

function formatFaults(faults: NonNullable<TransferView["faults"]>): string {
  return `${faults.count} served, p50 ${formatUs(faults.p50Us)}, p99 ${formatUs(faults.p99Us)}`;
}

/** Who passes on what this transfer does not send meanwhile. */
function formatHolding({ relay }: TransferView): string {
  return relay?.holding === true && relay.from !== undefined ? `, by way of ${printable(relay.from)}` : "";
}

/** One line of progress, for output that is no terminal. */
export function formatPlain(view: TransferView): string {
  const { pages } = view;
  const share = formatShare(pages.received, pages.total);
  const reason = reasonOf(view);
  return printable(
    `${view.kind} ${view.id} ${formatRoute(view)}: ${view.phase} ${share}${formatWaiting(view)}, ${formatBytes(bytesToCome(view))} to come${formatDisks(view)}${formatHolding(view)}` +
      ` (fault ${pages.fault}, push ${pages.push}, sweep ${pages.sweep})${reason === undefined ? "" : `: ${reason}`}`,
  );
}

/** A transfer as a few lines with bars by lane, at most `columns` wide. */
export function formatLive(view: TransferView, rates: Rates, columns: number): string[] {
  const { pages } = view;
  const width = Math.max(8, Math.min(32, columns - 60));
  const bar = (count: number) => formatBar(pages.total === 0 ? 1 : count / pages.total, width);
  const pause = view.pauseUs === undefined ? "" : `, pause ${formatUs(view.pauseUs)}`;
  const first = view.firstInstructionUs === undefined ? "" : `, first ${formatUs(view.firstInstructionUs)}`;
  const relayed = formatHolding(view);
  const copies =
    view.copies && view.copies.pages > 0 ? `, ${plural(view.copies.pages, "copy", "copies")}` : "";
  const ahead = view.workingSet && view.workingSet.sent > 0 ? `, ${view.workingSet.sent} ahead` : "";
  const faults = view.faults && view.faults.count > 0 ? `, p50 ${formatUs(view.faults.p50Us)}` : "";
  const reason = reasonOf(view);
  const lines = [
    `${view.kind} ${view.id}  ${formatRoute(view)}  ${view.phase}${formatWaiting(view)}  ${formatMs(view.elapsedMs)}${pause}${first}`,
    `  memory ${bar(pages.received)} ${formatShare(pages.received, pages.total).padStart(5)}  ${formatBytes(bytesToCome(view))} to come${formatDisks(view)}`,
    `  urgent ${bar(pages.fault)} ${formatRate(rates.urgent).padStart(12)}  ${plural(pages.fault, "page")} by fault${faults}`,
    `  bulk   ${bar(pages.push + pages.sweep)} ${formatRate(rates.bulk).padStart(12)}  push ${pages.push}, sweep ${pages.sweep}${ahead}${copies}${relayed}`,
  ];
  if (reason !== undefined) lines.push(`  ${printable(reason)}`);
  return lines.map((line) => line.slice(0, columns));
}
