import type { ChildReport, Params, Result, RpcServerSession, TransferView } from "../../control/index.js";
import { messageOf, type Log } from "../../base/index.js";
import type { Emulator, GuestConfig } from "../../guest/index.js";
import type { ChildMachine } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { connectGuest } from "../network/guest-link.js";
import type { Services } from "../services.js";
import type { ChildMove } from "./child-move.js";
import type { ChildRelays } from "./child-relays.js";
import type { TransferEntry } from "./transfer-entry.js";
import type { ChildRecord, RecordFile } from "./transfer-record.js";

export type PrepareParams = Params<"peer.prepare">;

/** A child on this host as the commands of its parent's agent see it. */
export interface HostedChild {
  /** @throws AgentError `bad-state` or `bad-request`. */
  lacks(params: Params<"peer.lacks">): void;
  /** @throws AgentError `bad-state`, GuestError. */
  ahead(head: Uint8Array): Promise<void>;
  start(params: Params<"peer.start">, session: RpcServerSession): Promise<Result<"peer.start">>;
  run(session?: RpcServerSession): Promise<Result<"peer.run">>;
  cancel(reason: string): Promise<void>;
  /**
   * Ends a child whose parent runs on instead: one that has run is kept, and never runs again.
   * @throws AgentError `bad-state` when it is complete, and so does not depend on its parent.
   */
  fence(reason: string): Promise<void>;
  report(session?: RpcServerSession): ChildReport;
  /** Its lanes to other children of its instant; absent when it was complete before this agent was. */
  readonly relays?: ChildRelays;
  /** Complete, or all but that, and not let run yet. */
  readonly isHeld: boolean;
  /** Leaves it to the next agent. */
  detach(): void;
}

export interface IncomingChildOptions {
  services: Services;
  guest: Guest;
  live: LiveEmulator;
  record: RecordFile<ChildRecord>;
  /** The connection that commands the child; absent for the child of an agent that has ended. */
  session?: RpcServerSession;
  /** Another emulator is taking it over, in whose memory it goes on. */
  moving?: ChildMove;
  /** Called when the transfer is over. */
  onOver(): void;
}

/** What the child's side tells of a transfer. */
export function reportOfView(view: TransferView): ChildReport {
  return {
    transfer: view.id,
    phase: view.phase,
    duplicates: view.pages.duplicates,
    ...(view.faults === undefined ? {} : { faults: view.faults }),
    ...(view.verify === undefined ? {} : { verify: view.verify }),
    ...(view.disks === undefined ? {} : { disks: view.disks }),
    ...(view.error === undefined ? {} : { message: view.error.message }),
  };
}

/** Nobody may end a guest that runs and depends on nobody. */
export function isComplete(guest: Guest): AgentError {
  return new AgentError(
    "bad-state",
    `guest ${guest.name} has all its memory and depends on no other host; migrate it back, or remove it as any other guest`,
  );
}

/** Lets a child execute its first instruction. A migrated guest takes its parent's place in the network, which the parent has left by then. */
export async function letRun(
  emulator: Emulator,
  network: GuestConfig["network"],
  {
    kind,
    log,
    child,
    onRuns,
  }: Pick<PrepareParams, "kind"> & { log: Log; child: { requireGoing(): void }; onRuns(): void },
): Promise<void> {
  if (kind === "migrate") await connectGuest(emulator, network);
  // Its end may have begun meanwhile: what stops it for good must come after all that lets it run.
  child.requireGoing();
  await emulator.resume();
  onRuns();
  if (kind === "migrate") announce(emulator, network, log);
}

/** Tells the network of a migrated guest's new place, for which nobody waits. */
export function announce(emulator: Emulator, network: GuestConfig["network"], log: Log): void {
  if (network.mode === "none" || network.mode === "isolated") return;
  emulator.announce().catch((error: unknown) => {
    log.warn({ problem: messageOf(error) }, "the network could not be told of the guest's new place");
  });
}

/** What a child's comparison of digests found, if it has made one. */
function verifiedBy({
  verify,
}: Pick<ChildMachine, "verify">): { checked: number; mismatches: number } | undefined {
  return verify && { checked: verify.checked, mismatches: verify.mismatches };
}

/** Notes what the comparison found in what users see of the transfer. */
export function noteVerified(machine: ChildMachine, { facts }: Pick<TransferEntry, "facts">, log: Log): void {
  const verify = verifiedBy(machine);
  if (verify === undefined) return;
  facts.verify = verify;
  if (verify.mismatches > 0) log.error({ verify }, "the child was given other pages than its parent had");
}

/** From here on the child needs nobody: a new agent only has to let go of its memory. */
export function noteComplete(record: RecordFile<ChildRecord>, machine: ChildMachine, log: Log): void {
  const verify = verifiedBy(machine);
  try {
    record.update({ complete: verify === undefined ? {} : { verify } });
  } catch (error) {
    // A new agent would find that there is nothing to be asked for.
    log.warn({ problem: messageOf(error) }, "it could not be noted that a child is complete");
  }
}
