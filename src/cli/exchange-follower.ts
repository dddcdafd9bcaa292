import { codeOf, messageOf, sleep } from "../base/index.js";
import type { ExchangeRunView } from "../control/index.js";
import type { Context } from "./context.js";
import { CliError } from "./errors.js";
import { formatExchanged, formatRunLine, isSettled } from "./format/exchange.js";
import { LiveView } from "./live-view.js";

/** How often the agent is asked how far it is. */
const POLL_MS = 250;

export const HOW_TO_FOLLOW =
  "the exchange goes on; ramet exchange --status shows it, with --follow as it goes on, and ramet exchange --stop begins with no further guest";

/**
 * Shows an exchange of all guests as it goes on, until it is over: in place on a terminal, else a line for each guest; with `stream` as JSON lines.
 * @returns how it came out.
 * @throws CliError `unreachable` when the agent ends: the next one goes on with it.
 */
export async function followRun(
  context: Context,
  first: ExchangeRunView,
  options: { stream: boolean },
): Promise<ExchangeRunView> {
  const { stdout, clock } = context.environment;
  const view = new LiveView(stdout, clock);
  context.defer(() => view.close({ keep: false }));
  context.interruptHint = HOW_TO_FOLLOW;
  const said = new Map<string, string>();
  let last = "";
  for (let run = first; ; run = await ask(context)) {
    const text = JSON.stringify(run);
    if (options.stream && text !== last) context.printJsonLine({ run });
    last = text;
    if (!context.json) {
      const news = newsOf(run, said);
      if (context.live) {
        if (news.length > 0) view.say(news);
        view.show([formatRunLine(run)]);
      } else if (news.length > 0) context.print(...news);
    }
    if (run.endedAtMs !== undefined) {
      view.close({ keep: false });
      context.interruptHint = undefined;
      return run;
    }
    await sleep(clock, POLL_MS);
  }
}

/** What was not said yet of guests whose turn is over, or that keep the exchange waiting. */
function newsOf({ guests }: ExchangeRunView, said: Map<string, string>): string[] {
  const news: string[] = [];
  for (const guest of guests) {
    const waits = guest.standing === "waiting" && guest.reason !== undefined;
    if (!isSettled(guest) && !waits) continue;
    const line = formatExchanged(guest);
    if (said.get(guest.id) === line) continue;
    said.set(guest.id, line);
    news.push(line);
  }
  return news;
}

async function ask(context: Context): Promise<ExchangeRunView> {
  try {
    const { run } = await context.call("exchange.show", {});
    if (run !== undefined) return run;
  } catch (error) {
    if (codeOf(error) !== "closed") throw error;
    throw new CliError("unreachable", `the agent has ended: ${messageOf(error)}`, {
      hint: "the next agent goes on with the exchange; ramet exchange --status --follow shows it then",
      cause: error,
    });
  }
  throw new CliError("failed", "the agent knows of no exchange of all guests any more");
}
