import type { ChildReport, Params, Result, RpcServerSession, TransferView } from "../../control/index.js";
import { isSame, messageOf, type Identity, type Log } from "../../base/index.js";
import type { Emulator, GuestConfig } from "../../guest/index.js";
import { dial, LaneError } from "../../lane/index.js";
import type { ChildMachine, FrameLane, PageLane } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import { Lease } from "./lease.js";
import type { ChildRecord, RecordFile } from "./transfer-record.js";

const LANE_DEADLINE_MS = 5000;

export type PrepareParams = Params<"peer.prepare">;

/** A child on this host as the commands of its parent's agent see it. */
export interface HostedChild {
  /** @throws AgentError `bad-state` or `bad-request`. */
  lacks(params: Params<"peer.lacks">): void;
  start(params: Params<"peer.start">, session: RpcServerSession): Promise<Result<"peer.start">>;
  run(session: RpcServerSession): Promise<Result<"peer.run">>;
  cancel(reason: string): Promise<void>;
  /**
   * Ends a child whose parent runs on instead: one that has run is kept, and never runs again.
   * @throws AgentError `bad-state` when it is complete, and so does not depend on its parent.
   */
  fence(reason: string): Promise<void>;
  report(session?: RpcServerSession): ChildReport;
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
  /** Called when the transfer is over. */
  onOver(): void;
}

/**
 * How a child's page lanes are dialled: only who commands the child may send its memory.
 * The function it returns throws LaneError; `certificate-role` when somebody else answers where the parent's host is said to be.
 */
export function dialParent(
  services: Services,
  { params, holder }: Readonly<ChildRecord>,
): (purpose: PageLane | "precopy", epoch: number) => Promise<FrameLane> {
  const { configuration, credentials, clock } = services;
  const { transfer, token, parentUrl } = params;
  const requireHolder = (identity: Identity): void => {
    if (isSame(identity, holder)) return;
    const message = `${identity.name} answers at ${parentUrl}, and the transfer is of ${holder.name}`;
    throw new LaneError("certificate-role", message);
  };
  return (purpose, epoch) =>
    dial({
      url: parentUrl,
      hello: { purpose, role: "peer", transfer, epoch, token },
      credentials,
      key: parentUrl.startsWith("ws://") ? configuration.key : undefined,
      requireIdentity: requireHolder,
      clock,
      deadlineMs: LANE_DEADLINE_MS,
    });
}

/** What the child's side tells of a transfer. */
export function reportOfView(view: TransferView): ChildReport {
  return {
    transfer: view.id,
    phase: view.phase,
    duplicates: view.pages.duplicates,
    ...(view.faults === undefined ? {} : { faults: view.faults }),
    ...(view.verify === undefined ? {} : { verify: view.verify }),
    ...(view.error === undefined ? {} : { message: view.error.message }),
  };
}

/** A lease on a migrated child's running, in the emulator's terms. */
export function leaseOf(
  services: Services,
  log: Log,
  child: { params: PrepareParams; guest: Guest; live: LiveEmulator; machine: ChildMachine },
): Lease {
  const { params, guest, live, machine } = child;
  const { host } = params.parent;
  return new Lease({
    leaseMs: params.leaseMs ?? services.configuration.limits.migrationLeaseSeconds * 1000,
    isLinked: () => machine.progress().linked,
    stop: async (outOfReachMs) => {
      const seconds = Math.round(outOfReachMs / 1000);
      log.warn(
        { host, seconds },
        "the parent's host is out of reach; the child stands still until it is back",
      );
      guest.note({
        state: "receiving",
        message: `stands still until ${host} is back, which is out of reach`,
      });
      await live.emulator.stop({ forGood: true });
    },
    resume: async () => {
      log.info({ host }, "the parent's host is back; the child goes on");
      await live.emulator.resume();
      if (guest.state === "receiving") guest.note({ state: "receiving" });
    },
    clock: services.clock,
    log,
  });
}

/** Nobody may end a guest that runs and depends on nobody. */
export function isComplete(guest: Guest): AgentError {
  return new AgentError(
    "bad-state",
    `guest ${guest.name} has all its memory and depends on no other host; migrate it back, or remove it as any other guest`,
  );
}

/** Tells the network of a migrated guest's new place, for which nobody waits. */
export function announce(emulator: Emulator, network: GuestConfig["network"], log: Log): void {
  if (network.mode === "none" || network.mode === "isolated") return;
  emulator.announce().catch((error: unknown) => {
    log.warn({ problem: messageOf(error) }, "the network could not be told of the guest's new place");
  });
}
