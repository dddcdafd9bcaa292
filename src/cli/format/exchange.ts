import type { ExchangedGuest, ExchangeRunView, ExchangeStanding } from "../../control/index.js";
import { formatBar } from "./bar.js";
import { formatTable } from "./table.js";
import { formatMs, formatUs } from "./units.js";

const BAR_CHARACTERS = 30;

const WORDS: { readonly [Standing in ExchangeStanding]: string } = {
  waiting: "waits",
  "under-way": "under way",
  "already-there": "already there",
  exchanged: "exchanged",
  refused: "refused",
  failed: "failed",
  ended: "has ended",
  left: "left as it was",
};

const PHASES: { readonly [Phase in ExchangeRunView["phase"]]: string } = {
  running: "goes on",
  stopping: "is being stopped",
  interrupted: "waits for the next agent",
  stopped: "was stopped",
  done: "is over",
};

/** Whether a guest's turn is over. */
export function isSettled({ standing }: ExchangedGuest): boolean {
  return standing !== "waiting" && standing !== "under-way";
}

/** What an exchange of all guests is, and its report. */
export function formatRun(run: ExchangeRunView, nowMs: number): string[] {
  const { guests, emulator, phase, startedAtMs, endedAtMs } = run;
  const where = emulator === undefined ? "the emulator that guests start on" : `the emulator ${emulator}`;
  const since = endedAtMs ?? nowMs;
  const head = `the exchange of all guests to ${where} ${PHASES[phase]}, ${formatMs(Math.max(0, since - startedAtMs))} since it began: ${counts(guests)}`;
  if (guests.length === 0) return [head];
  return [
    head,
    ...formatTable(
      [
        { title: "NAME" },
        { title: "" },
        { title: "FROM" },
        { title: "TO" },
        { title: "PAUSE", right: true },
        { title: "" },
      ],
      guests.map((guest) => [
        guest.name,
        WORDS[guest.standing],
        guest.from ?? "-",
        guest.to ?? "-",
        guest.pauseUs === undefined ? "-" : formatUs(guest.pauseUs),
        guest.reason?.message ?? "",
      ]),
    ),
  ];
}

/** One guest whose turn is over, or that waits for a reason. */
export function formatExchanged({ name, standing, from, to, pauseUs, reason }: ExchangedGuest): string {
  const versions =
    standing === "exchanged" && from !== undefined && to !== undefined ? ` ${from} to ${to}` : "";
  const pause = pauseUs === undefined ? "" : `, pause ${formatUs(pauseUs)}`;
  const why = reason === undefined ? "" : `: ${reason.message}`;
  return `${name}: ${WORDS[standing]}${versions}${pause}${why}`;
}

/** How far it is, in one line. */
export function formatRunLine({ guests }: ExchangeRunView): string {
  const settled = guests.filter(isSettled).length;
  const underWay = guests.filter(({ standing }) => standing === "under-way").map(({ name }) => name);
  const share = guests.length === 0 ? 1 : settled / guests.length;
  const now = underWay.length === 0 ? "" : `: ${underWay.join(", ")}`;
  return `exchanging ${formatBar(share, BAR_CHARACTERS)} ${settled} of ${guests.length} guests${now}`;
}

function counts(guests: readonly ExchangedGuest[]): string {
  if (guests.length === 0) return "there is no guest";
  const found = new Map<ExchangeStanding, number>();
  for (const { standing } of guests) found.set(standing, (found.get(standing) ?? 0) + 1);
  return [...found].map(([standing, count]) => `${count} ${WORDS[standing]}`).join(", ");
}
