import {
  isFinal,
  type ChildOutcome,
  type RpcClient,
  type TransferKind,
  type TransferView,
} from "../../control/index.js";
import { ASK_DEADLINE_MS, WORK_DEADLINE_MS, type Context } from "../context.js";
import { CliError } from "../errors.js";
import { formatEnd, formatOutcome } from "../format/transfer.js";
import { openDisplay } from "../transfer-display.js";
import { TransferFollower } from "../transfer-follower.js";

/** A fork or a migration as its command carries it out. */
export interface TransferWork {
  kind: TransferKind;
  guest: string;
  /** Wait until every child has all of its memory. */
  wait: boolean;
  start(client: RpcClient, options: { deadlineMs: number }): Promise<{ transfers: ChildOutcome[] }>;
}

/**
 * Starts a fork or migration, shows how its children came out, follows the memory still to come, and says what it took.
 * @throws CliError `failed` when a child failed, at the start or later, or when verified pages differ.
 */
export async function carryOut(context: Context, work: TransferWork): Promise<void> {
  const client = await context.connect();
  if (!work.wait) {
    const { transfers } = await work.start(client, { deadlineMs: WORK_DEADLINE_MS });
    context.answer({ transfers }, () => transfers.flatMap(formatOutcome));
    failIfAny(transfers, []);
    return;
  }
  const follower = await followNew(client, work);
  // With --json only the final document is printed.
  const display = context.json ? undefined : openDisplay(context, follower);
  const { transfers } = await work.start(client, { deadlineMs: WORK_DEADLINE_MS });
  display?.say(transfers.flatMap(formatOutcome));
  context.interruptHint = `the ${work.kind} goes on; ramet watch shows it, ramet cancel ends it`;
  const running = new Set(
    transfers.filter((child) => child.state !== "failed").map((child) => child.transfer),
  );
  await follower.refresh();
  await follower.untilFinal(running);
  const ends = follower.views.filter((view) => running.has(view.id));
  display?.close({ keep: false });
  if (context.json) context.printJson({ transfers, ends });
  else context.print(...ends.flatMap(formatEnd));
  failIfAny(transfers, ends);
}

/** Follows the transfers that this command is about to start: the parent's side, none that was there before. */
async function followNew(client: RpcClient, work: TransferWork): Promise<TransferFollower> {
  const before = await client.call("transfer.list", {}, { deadlineMs: ASK_DEADLINE_MS });
  const known = new Set(before.transfers.map((view) => view.id));
  return TransferFollower.open(
    client,
    (view) =>
      view.role === "parent" && view.kind === work.kind && view.guest === work.guest && !known.has(view.id),
  );
}

function failIfAny(transfers: readonly ChildOutcome[], ends: readonly TransferView[]): void {
  const lost = ends.filter((view) => isFinal(view.phase) && view.phase !== "complete").length;
  const failed = transfers.filter((child) => child.state === "failed").length + lost;
  if (failed > 0) throw new CliError("failed", `${failed} of ${transfers.length} did not succeed`);
  const mismatches = ends.reduce((sum, view) => sum + (view.verify?.mismatches ?? 0), 0);
  if (mismatches > 0) {
    throw new CliError(
      "failed",
      `${mismatches} pages differ from what they were at the instant of the fork`,
      {
        hint: "this is a fault of ramet; do not use the child, and keep the agents' logs",
      },
    );
  }
}
