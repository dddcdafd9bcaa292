import { codeOf, isSame, messageOf, PAGE_BYTES } from "../../base/index.js";
import { RemoteError, type Params, type Result, type RpcClient } from "../../control/index.js";
import { TransferError } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { GuestRecord } from "../guests/guest-record.js";
import { connectOrGoWithout } from "../network/guest-link.js";
import type { Services } from "../services.js";
import { certainAfterMs } from "./lease.js";
import { TransferEntry } from "./transfer-entry.js";

const FENCE_DEADLINE_MS = 20_000;

type Outgoing = NonNullable<GuestRecord["outgoing"]>;

/** Lets a guest that was stopped for a migration run on here, at its place in the network if that is still free. */
export async function runOn(guest: Guest): Promise<void> {
  const { emulator } = guest.live;
  const message = await connectOrGoWithout(emulator, guest.config.network);
  if (message !== undefined) guest.log.error({ problem: message }, "a guest runs on without its network");
  await emulator.resume();
  await guest.update({ state: "running", outgoing: null, ...(message === undefined ? {} : { message }) });
}

/** Lets the guests run on whose migration an earlier agent had rolled back, and that it did not come to let run. */
export function finishRollBacks({ registry }: Services): void {
  for (const guest of registry.list()) {
    if (guest.record.outgoing?.rolledBack === true && guest.hasEmulator)
      registry.whenAnswering(guest, () => runOn(guest));
  }
}

/**
 * Undoes a migration that has switched and is not complete: its child stands still for good, and the guest runs on here, as it was at the switch. What it did elsewhere
 * since is lost.
 * @throws AgentError `bad-state` when there is nothing to undo, `unconfirmed` when nobody can say that the child does not run; RemoteError of the child's host.
 */
export async function rollBack(
  services: Services,
  params: Params<"guest.rollback">,
): Promise<Result<"guest.rollback">> {
  const guest = services.registry.find(params.name);
  const { outgoing } = guest.record;
  const hasSwitched = guest.state === "migrated" || guest.state === "paused";
  if (outgoing === undefined || !guest.hasEmulator || !hasSwitched) {
    throw new AgentError(
      "bad-state",
      `guest ${guest.name} has not left this host by a migration that is not complete yet, so there is nothing to roll back`,
    );
  }
  const { transfer, host, switchedAtMs } = outgoing;
  const result = { transfer, host, ...(switchedAtMs === undefined ? {} : { switchedAtMs }) };
  if (params.dryRun) return { ...result, done: false };
  const entry = services.book.find(transfer, "parent");
  const reason = `rolled back: ${guest.name} runs on ${services.configuration.name} again, as it was at the switch`;
  await fence(services, { entry, outgoing, reason, force: params.force });
  await entry.abandon?.(new TransferError("rolled-back", reason));
  guest.requireIdle();
  // On disk before it runs: a new agent that finds this lets it run on, and nobody asks the child again.
  await guest.update({ outgoing: { ...outgoing, rolledBack: true } });
  await runOn(guest);
  guest.log.warn({ transfer, host, force: params.force }, "a migration was rolled back");
  return { ...result, done: true };
}

/** Resolves when the child does not run and never will. Where its host cannot be asked, the operator must say so, and its lease must be over. */
async function fence(
  services: Services,
  child: { entry: TransferEntry; outgoing: Outgoing; reason: string; force: boolean },
): Promise<void> {
  const { entry, outgoing, reason, force } = child;
  const { transfer, host, leaseMs } = outgoing;
  const { clock, configuration } = services;
  try {
    const client = await connectToHolder(services, outgoing);
    await client.call("peer.fence", { transfer, reason }, { deadlineMs: FENCE_DEADLINE_MS });
    return;
  } catch (error) {
    if (error instanceof RemoteError && error.code === "no-such-transfer") return;
    // Its host has answered, and no lease is left of a child that was complete: what remains is the operator's word.
    if (codeOf(error) === "has-run" && force) return;
    if (codeOf(error) === "has-run") throw wentOn(error);
    if (error instanceof RemoteError) throw error;
    const lease = leaseMs ?? configuration.limits.migrationLeaseSeconds * 1000;
    const leftMs = entry.lastHeardMs() + certainAfterMs(lease) - clock.wallMs();
    if (force && leftMs <= 0) return;
    const when = leftMs <= 0 ? "now" : `in ${Math.ceil(leftMs / 1000)} s, when the child's lease is over`;
    throw new AgentError(
      "unconfirmed",
      `${host} cannot be asked to stop the child (${messageOf(error)}), and two must not run. Bring it back, or, if it is known to be down, repeat with --force ${when}`,
      { cause: error },
    );
  }
}

/** A guest that was complete elsewhere may have gone anywhere from there. */
function wentOn(error: unknown): AgentError {
  return new AgentError(
    "unconfirmed",
    `${messageOf(error)}. Two must not run: see that it runs nowhere, and repeat with --force then`,
    { cause: error },
  );
}

/** Only who took the child can say that it is gone; whoever else answers there knows nothing of it. */
async function connectToHolder({ peers }: Services, { url, host, holder }: Outgoing): Promise<RpcClient> {
  const address = url ?? peers.resolve(host);
  const { client, identity } = await peers.link(address);
  if (holder !== undefined && isSame(holder, identity)) return client;
  const taker = holder === undefined ? "nobody knows who took the child" : `${holder.name} took the child`;
  throw new AgentError("refused", `${identity.name} answers at ${address}, and ${taker}`);
}

/** How a user gets a guest on, or rid of it, that was kept as it was at the switch. */
export function rollBackAdvice(guest: Guest): string {
  return `To let it run on from there: ramet rollback ${guest.name}; to give it up: ramet remove ${guest.name}`;
}

/** Enters the migrations that an earlier agent did not see the end of, so that their guests can still be let run on. */
export async function restoreMigrations(services: Services): Promise<void> {
  for (const guest of services.registry.list()) {
    const { outgoing } = guest.record;
    if (outgoing === undefined || !guest.hasEmulator || guest.occupation !== undefined) continue;
    if (outgoing.rolledBack === true) continue;
    if (guest.state === "running") {
      // That agent ended before it had stopped the guest.
      await guest.update({ outgoing: null });
      continue;
    }
    const entry = new TransferEntry({
      transfer: outgoing.transfer,
      kind: "migrate",
      role: "parent",
      guest: guest.name,
      peerGuest: guest.name,
      host: outgoing.host,
      pageCount: guest.config.memoryBytes / PAGE_BYTES,
      clock: services.clock,
    });
    services.book.add(entry);
    const message = `the agent was restarted while the guest was migrated to ${outgoing.host}`;
    entry.enter("failed", { message, error: new AgentError("transfer-failed", message) });
    const stopped = `stopped as it was when ${outgoing.host} was to take over; ${message}. See there whether it runs.`;
    await guest.update({
      state: "paused",
      message: `${stopped} ${rollBackAdvice(guest)}`,
    });
  }
}
