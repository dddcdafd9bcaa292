import type { Context } from "./context.js";
import { formatBar } from "./format/bar.js";
import { formatBytes, formatShare } from "./format/units.js";
import { LiveView } from "./live-view.js";

/** How long it may take: all of a chain is copied, perhaps at a rate. */
const DISK_DEADLINE_MS = 24 * 3_600_000;

/** The number of the one piece of work that a command has going. */
const WORK = 1;

const BAR_CHARACTERS = 30;

/**
 * Has a guest's disks copied, and shows on a terminal how far that is.
 * @param interruptHint what becomes of it when the command is interrupted.
 */
export async function followDiskWork<T>(
  context: Context,
  title: string,
  body: (work: number, deadlineMs: number) => Promise<T>,
  interruptHint = "it is given up; the guest runs on, and its disks are as they were",
): Promise<T> {
  const client = await context.connect();
  const view = new LiveView(context.environment.stdout, context.environment.clock);
  const stop = client.onEvent(({ event, data }) => {
    if (event !== "disk" || data.work !== WORK || !context.live) return;
    const { disk, doneBytes, sizeBytes } = data;
    const bar = formatBar(sizeBytes === 0 ? 1 : doneBytes / sizeBytes, BAR_CHARACTERS);
    view.show([`${title}: ${disk} ${bar} ${formatShare(doneBytes, sizeBytes)} of ${formatBytes(sizeBytes)}`]);
  });
  context.defer(() => {
    stop();
    view.close({ keep: false });
  });
  context.interruptHint = interruptHint;
  const result = await body(WORK, DISK_DEADLINE_MS);
  stop();
  view.close({ keep: false });
  context.interruptHint = undefined;
  return result;
}
