import { messageOf } from "../../base/index.js";
import type { ChildReport, Params, Result, RpcServerSession } from "../../control/index.js";
import { NOTHING_MOVED } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest } from "../network/guest-link.js";
import type { Services } from "../services.js";
import { Custody } from "./custody.js";
import { isComplete, type HostedChild } from "./hosted-child.js";
import { entryOf } from "./incoming-parts.js";
import type { TransferEntry } from "./transfer-entry.js";
import { isToRun, type ChildRecord, type RecordFile } from "./transfer-record.js";

/** The child of an agent that has ended, with all its memory: its parent's agent may ask how it came out, and a held one may be let run. */
export class CompleteChild implements HostedChild {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #record: RecordFile<ChildRecord>;
  readonly #entry: TransferEntry;
  /** Nobody knew yet that it is complete. */
  readonly #isNew: boolean;
  readonly #custody: Custody;

  constructor(services: Services, guest: Guest, record: RecordFile<ChildRecord>) {
    this.#services = services;
    this.#guest = guest;
    this.#record = record;
    const { params, complete } = record.record;
    this.#entry = entryOf(services, guest, record.record);
    if (complete?.verify !== undefined) this.#entry.facts.verify = complete.verify;
    this.#entry.commands = {
      cancel: () => this.cancel(),
      steer: () => {
        throw new AgentError("bad-state", `transfer ${params.transfer} is over`);
      },
      run: async () => void (await this.run()),
    };
    const total = params.pageCount;
    // What it counted is gone with the agent that counted.
    this.#entry.countFrom(() => ({ ...NOTHING_MOVED, total, received: total, linked: true }));
    // Later it may be anything, such as a parent that must not run.
    this.#isNew = guest.state === "receiving";
    if (this.#isNew) {
      const state = isToRun(record.record) ? "running" : "paused";
      guest.note({ state, complete: true });
    }
    // Others are over for anybody but the parent's agent.
    if (this.isHeld) services.book.add(this.#entry);
    this.#entry.enter("complete");
    const { host } = params.parent;
    this.#custody = new Custody({
      clock: services.clock,
      // A fork's child that is held lives; a migration's may not, because its parent may go on instead.
      isAbandonable: () => this.isHeld && params.kind === "migrate",
      onAbandoned: () => {
        guest.log.info({ host }, "a child that was never told to run is removed");
        services.registry.remove(guest).catch((error: unknown) => {
          guest.log.error({ problem: messageOf(error) }, "a child could not be removed in full");
        });
      },
    });
    this.#custody.passTo(undefined);
  }

  get isHeld(): boolean {
    return this.#record.record.step === "loaded" && this.#guest.state === "paused" && this.#guest.hasEmulator;
  }

  /** It was let run by an agent that ended before it could see to that. */
  async settle(): Promise<void> {
    if (
      this.#isNew &&
      isToRun(this.#record.record) &&
      (await this.#guest.live.emulator.status()) === "paused"
    )
      await this.#resume();
  }

  lacks(): void {
    throw this.#badState("told what it lacks");
  }

  ahead(): Promise<void> {
    return Promise.reject(this.#badState("given a device state"));
  }

  start(_params: Params<"peer.start">): Promise<Result<"peer.start">> {
    return Promise.reject(this.#badState("started"));
  }

  async run(session?: RpcServerSession): Promise<Result<"peer.run">> {
    if (session !== undefined) this.#custody.passTo(session);
    if (this.isHeld) {
      this.#record.update({ step: "running" });
      await this.#resume();
    }
    return { loadUs: 0, runUs: 0 };
  }

  fence(): Promise<void> {
    return Promise.reject(isComplete(this.#guest));
  }

  async cancel(): Promise<void> {
    if (this.isHeld) return this.#services.registry.remove(this.#guest);
    const { name } = this.#guest;
    throw new AgentError("bad-state", `guest ${name} is complete and runs; remove it as any other guest`);
  }

  report(session?: RpcServerSession): ChildReport {
    if (session !== undefined) this.#custody.passTo(session);
    return reportOf(this.#record.record);
  }

  detach(): void {
    this.#custody.end();
    this.#record.leave();
  }

  #badState(doing: string): AgentError {
    const { transfer } = this.#record.record;
    return new AgentError(
      "bad-state",
      `the child of transfer ${transfer} is complete and cannot be ${doing}`,
    );
  }

  async #resume(): Promise<void> {
    const { emulator } = this.#guest.live;
    if (this.#record.record.params.kind === "migrate")
      await connectGuest(emulator, this.#guest.config.network);
    await emulator.resume();
    await this.#guest.update({ state: "running" });
  }
}

/** What a record says of a child whose transfer is over. */
export function reportOf({ transfer, complete, failed }: Readonly<ChildRecord>): ChildReport {
  if (complete === undefined)
    return { transfer, phase: "failed", message: failed ?? "it was never completed" };
  const { verify } = complete;
  return { transfer, phase: "complete", ...(verify === undefined ? {} : { verify }) };
}
