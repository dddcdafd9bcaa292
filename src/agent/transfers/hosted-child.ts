import type { ChildReport, Params, Result, RpcServerSession, TransferView } from "../../control/index.js";
import { dial } from "../../lane/index.js";
import type { FrameLane, PageLane } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
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

/** How a child's page lanes are dialled. */
export function dialParent(
  services: Services,
  params: PrepareParams,
): (purpose: PageLane | "precopy", epoch: number) => Promise<FrameLane> {
  const { configuration, clock } = services;
  const { key } = configuration;
  const { transfer, token, parentUrl } = params;
  return (purpose, epoch) =>
    dial({
      url: parentUrl,
      hello: { purpose, role: "peer", transfer, epoch, token },
      ...(key === undefined ? {} : { key }),
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
