import type { TransferView } from "../control/index.js";
import type { Context } from "./context.js";
import { formatLive, formatPlain } from "./format/transfer.js";
import { LiveView } from "./live-view.js";
import type { TransferFollower } from "./transfer-follower.js";

/** Without a terminal, a line is printed at every change of phase, when the link is lost or back, and each time this share of the memory has come. */
const PLAIN_STEP = 0.1;

/** Shows transfers as they go on: bars painted in place on a terminal, lines or JSON lines elsewhere. */
export interface TransferDisplay {
  /** Shows what has changed. */
  update(view: TransferView): void;
  /** Writes lines that stay. */
  say(lines: readonly string[]): void;
  /** Gives the terminal back. `keep` leaves the last bars on it. */
  close(options: { keep: boolean }): void;
}

/** The display that fits the output. It is closed when the command ends. */
export function openDisplay(context: Context, follower: TransferFollower): TransferDisplay {
  const display = context.json
    ? jsonDisplay(context)
    : context.live
      ? liveDisplay(context, follower)
      : plainDisplay(context);
  const stop = follower.onChange((view) => display.update(view));
  context.defer(() => {
    stop();
    display.close({ keep: true });
  });
  return display;
}

function jsonDisplay(context: Context): TransferDisplay {
  return {
    update: (view) => context.printJsonLine({ event: "transfer", data: { transfer: view } }),
    say: () => {},
    close: () => {},
  };
}

function liveDisplay(context: Context, follower: TransferFollower): TransferDisplay {
  const { stdout, clock } = context.environment;
  const view = new LiveView(stdout, clock);
  const paint = () => view.show(liveLines(follower, stdout.columns, view.rows));
  return { update: paint, say: (lines) => view.say(lines), close: (options) => view.close(options) };
}

/** The newest transfers stand last; as many as fit are shown whole. */
function liveLines(follower: TransferFollower, columns: number, rows: number): string[] {
  const lines: string[] = [];
  for (const transfer of follower.views.reverse()) {
    const block = formatLive(transfer, follower.ratesOf(transfer), columns);
    if (lines.length > 0 && lines.length + block.length > rows) break;
    lines.unshift(...block);
  }
  return lines;
}

function plainDisplay(context: Context): TransferDisplay {
  const said = new Map<string, { phase: string; waits: boolean; share: number }>();
  return {
    update(view) {
      const key = `${view.id} ${view.role}`;
      const before = said.get(key);
      const share = view.pages.total === 0 ? 1 : view.pages.received / view.pages.total;
      const { phase } = view;
      const waits = view.link?.state === "reconnecting";
      if (before?.phase === phase && before.waits === waits && share < before.share + PLAIN_STEP) return;
      said.set(key, { phase, waits, share });
      context.print(formatPlain(view));
    },
    say: (lines) => context.print(...lines),
    close: () => {},
  };
}
