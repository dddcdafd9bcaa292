import type { EventData } from "../control/index.js";
import type { Context } from "./context.js";
import { formatBar } from "./format/bar.js";
import { formatBytes, formatShare } from "./format/units.js";
import { LiveView } from "./live-view.js";

/** How long an import or a check may take: a full disk of 4 TiB over a slow link is read in less. */
const IMAGE_DEADLINE_MS = 24 * 3_600_000;

/** The number of the one piece of work that a command has going. */
const WORK = 1;

const BAR_CHARACTERS = 30;

const PHASES = {
  copy: "reading",
  convert: "converting",
  digest: "digesting",
  pull: "fetching",
  wait: "waiting for the other host",
  full: "waiting for room",
} as const;

/**
 * Runs an import or a check, and shows on a terminal how far it is.
 * @param interruptHint what becomes of it when the command is interrupted.
 */
export async function followImageWork<T>(
  context: Context,
  title: string,
  body: (work: number, deadlineMs: number) => Promise<T>,
  interruptHint = "nothing of it is kept",
): Promise<T> {
  const client = await context.connect();
  const view = new LiveView(context.environment.stdout, context.environment.clock);
  const stop = client.onEvent(({ event, data }) => {
    if (event === "image" && data.work === WORK && context.live) view.show([lineOf(title, data)]);
  });
  context.defer(() => {
    stop();
    view.close({ keep: false });
  });
  context.interruptHint = interruptHint;
  const result = await body(WORK, IMAGE_DEADLINE_MS);
  stop();
  view.close({ keep: false });
  context.interruptHint = undefined;
  return result;
}

function lineOf(title: string, { phase, doneBytes, sizeBytes }: EventData<"image">): string {
  const share = sizeBytes === 0 ? 1 : doneBytes / sizeBytes;
  const bar = formatBar(share, BAR_CHARACTERS);
  return `${title}: ${PHASES[phase]} ${bar} ${formatShare(doneBytes, sizeBytes)} of ${formatBytes(sizeBytes)}`;
}
