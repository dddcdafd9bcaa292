import { assert, messageOf, type Log } from "../../base/index.js";
import type { ChildReport, Params, Result, RpcServerSession } from "../../control/index.js";
import { TransferError, type ChildMachine, type ChildPhase } from "../../transfer/index.js";
import { AwaitedDisks } from "../disks/awaited-disks.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { noteReceived, noteRuns } from "../guests/stands-still.js";
import type { Services } from "../services.js";
import { FileNotes } from "./child-notes.js";
import type { ChildMove } from "./child-move.js";
import type { ChildPrecopy } from "./child-precopy.js";
import { ChildRelays } from "./child-relays.js";
import { ChildTelling } from "./child-telling.js";
import type { Custody } from "./custody.js";
import {
  isComplete,
  letRun,
  noteComplete,
  type HostedChild,
  type IncomingChildOptions,
  type PrepareParams,
  noteVerified,
} from "./hosted-child.js";
import { endCrashed, isKept, standStill } from "./incomplete-child.js";
import {
  commandsOf,
  countsOf,
  custodyOf,
  entryOf,
  leaseOf,
  machineOf,
  precopyOf,
  runAside,
} from "./incoming-parts.js";
import type { Lease } from "./lease.js";
import { badStep, migratedAndRan } from "./past-children.js";
import { StateLoading } from "./state-loading.js";
import type { TransferEntry } from "./transfer-entry.js";
import type { ChildRecord, RecordFile } from "./transfer-record.js";

/**
 * The child's side of a transfer on this host: a guest that is not one yet. It ends as a guest whose memory, and after a migration whose disks, are complete, or not at all.
 *
 *     prepared ──start──▶ loaded ──run──▶ running ──▶ (complete)
 *        └──────────────────┴── abandoned, cancelled, failed: emulator and guest are removed
 */
export class IncomingChild implements HostedChild {
  readonly entry: TransferEntry;
  readonly guest: Guest;
  readonly relays: ChildRelays;
  readonly #services: Services;
  readonly #params: PrepareParams;
  readonly #record: RecordFile<ChildRecord>;
  readonly #recovered: boolean;
  readonly #live: LiveEmulator;
  readonly #loading: StateLoading;
  readonly #notes: FileNotes;
  readonly #precopy: ChildPrecopy | undefined;
  readonly #machine: ChildMachine;
  readonly #commander: RpcServerSession | undefined;
  readonly #custody: Custody;
  readonly #leave: () => void;
  readonly #onOver: () => void;
  readonly #log: Log;
  #detached = false;
  #step: "prepared" | "loading" | "loaded" | "running" = "prepared";
  #loadUs = 0;
  #lettingRun: Promise<void> | undefined;
  readonly #lease: Lease | undefined;
  readonly #disks: AwaitedDisks;
  /** Another emulator is taking the child over. */
  moving: ChildMove | undefined;
  #stopWatching: () => void = () => {};
  readonly #telling: ChildTelling;
  #ending: Promise<void> | undefined;

  constructor(options: IncomingChildOptions) {
    const { services, guest, live } = options;
    const { params, step, incarnation } = options.record.record;
    const recovered = incarnation > 0;
    this.#services = services;
    this.#params = params;
    this.#record = options.record;
    this.moving = options.moving;
    this.#recovered = recovered;
    this.#step = recovered ? (step === "starting" ? "loading" : step) : "prepared";
    this.guest = guest;
    this.#live = live;
    this.#onOver = options.onOver;
    this.#commander = options.session;
    this.#log = guest.log.child({ transfer: params.transfer });
    this.#custody = custodyOf(services, this.#log, {
      params,
      isAbandonable: () => this.#isAbandonable(),
      cancel: (reason) => this.cancel(reason),
    });
    this.entry = entryOf(services, guest, options.record.record);
    this.#loading = new StateLoading(live.emulator, this.entry);
    this.#notes = new FileNotes(services.paths.guestMemory(guest.id), { ...params, recover: recovered });
    const made = { record: options.record.record, live, notes: this.#notes };
    const onEverything = (): void => {
      if (!this.#disks.any) noteComplete(this.#record, this.#machine, this.#log);
    };
    this.#machine = machineOf(services, this.#log, { ...made, onEverything });
    this.relays = new ChildRelays(services, this.#machine, params.transfer);
    const onFailed = (error: TransferError): void => this.#machine.cancel(error);
    if (params.precopy && !recovered) this.#precopy = precopyOf(services, this.#log, { ...made, onFailed });
    this.#disks = new AwaitedDisks(services, guest, params.kind);
    const leased = { ...options, machine: this.#machine, disks: this.#disks, letRun: () => this.#letRun() };
    if (params.kind === "migrate") this.#lease = leaseOf(services, this.#log, leased);
    const told = { entry: this.entry, machine: this.#machine, custody: this.#custody, disks: this.#disks };
    this.#telling = new ChildTelling({ ...told, clock: services.clock, onLook: () => this.#look() });
    const precopy = () => (this.#step === "prepared" ? this.#precopy : undefined);
    this.entry.countFrom(countsOf({ ...told, precopy }));
    this.entry.commands = commandsOf(this);
    guest.isHeld = () =>
      this.#step !== "running" || this.#lease?.isOver === true || this.moving !== undefined;
    this.#leave = guest.occupy({
      what: `receiving its memory from ${params.parent.host} (transfer ${params.transfer})`,
      transfers: [params.transfer],
    });
    services.book.add(this.entry);
  }

  /** Serves the memory's faults and dials the parent. */
  begin(): void {
    this.#custody.passTo(this.#commander);
    if (this.#recovered) this.#toFilling();
    this.#stopWatching = this.guest.onExit((why) => this.#onEmulatorEnd(why));
    this.#machine.start();
    this.#precopy?.start();
    runAside(this.#log, "machine", this.#machine.ended.then(this.#onMachineEnd.bind(this)));
  }

  /** Takes a piece of what the child lacks. @throws AgentError `bad-state` or `bad-request`. */
  lacks(params: Params<"peer.lacks">): void {
    if (this.#step !== "prepared" || this.#precopy === undefined) throw this.#badStep("told what it lacks");
    this.#precopy.lacks(params);
  }

  /** Takes the first part of the device state. @throws AgentError `bad-state`, GuestError. */
  async ahead(head: Uint8Array): Promise<void> {
    if (!this.#canStart(0)) throw this.#badStep("given a device state");
    await this.#loading.begin(head);
  }

  /** Loads the device state; with `run`, also lets the child run. */
  async start(params: Params<"peer.start">, session: RpcServerSession): Promise<Result<"peer.start">> {
    if (!this.#canStart(params.ahead)) throw this.#badStep("started");
    this.#step = "loading";
    this.#custody.passTo(session);
    try {
      return await this.#load(params);
    } catch (error) {
      // Whoever asked may not hear of it any more.
      const message = `the child could not be started: ${messageOf(error)}`;
      const why = new TransferError("child-failed", message, { cause: error });
      runAside(this.#log, "end", this.#end("failed", why));
      throw error;
    }
  }

  async #load(params: Params<"peer.start">): Promise<Result<"peer.start">> {
    const beganUs = this.#services.clock.nowUs();
    this.entry.enter("starting");
    this.#precopy?.commit();
    if (this.#precopy !== undefined) this.#machine.begin();
    await this.#services.disks.arrivals.begin(this.guest.config.disks);
    // From its first instruction on it is a guest: a new agent must know it for one. A disk that takes its time is waited for while the state is loaded.
    const runsByItself = params.run && this.#params.kind === "fork" && this.guest.isSaved;
    if (runsByItself) this.#record.update({ step: "starting" });
    await this.#loading.finish(params.deviceState, { run: runsByItself });
    this.#loadUs = this.#services.clock.nowUs() - beganUs;
    this.#step = "loaded";
    this.#record.update({ step: params.run ? "running" : "loaded" });
    if (!runsByItself) await this.guest.saved();
    if (runsByItself) this.#noteRuns();
    else if (params.run) await this.#letRun();
    this.#toFilling();
    return { loadUs: this.#loadUs, runUs: params.run ? this.#services.clock.nowUs() - beganUs : 0 };
  }

  /** Lets a loaded child execute its first instruction. Asking again is answered as the first time. */
  async run(session?: RpcServerSession): Promise<Result<"peer.run">> {
    if (session !== undefined) this.#telling.heardOn(session);
    if (this.#ending !== undefined) throw this.#badStep("run");
    if (this.#step === "running") {
      await this.#lease?.goOn();
      return { loadUs: this.#loadUs, runUs: 0 };
    }
    if (this.#step !== "loaded") throw this.#badStep("run");
    const beganUs = this.#services.clock.nowUs();
    this.#record.update({ step: "running" });
    await this.#letRun();
    return { loadUs: this.#loadUs, runUs: this.#services.clock.nowUs() - beganUs };
  }

  /** Once the emulator of a child that an earlier agent loaded answers: it may have been told to run and not let run yet. */
  async settle(): Promise<void> {
    if (this.#step === "loading" && this.#ending === undefined) this.#noteRuns();
    if (this.#ending !== undefined || this.#step !== "running") return;
    if ((await this.#live.emulator.status()) !== "paused") return;
    if (this.#lease !== undefined && this.entry.phase !== "complete") {
      this.#log.info({ host: this.#params.parent.host }, "the child goes on when its parent's host is there");
      return this.#lease.hold();
    }
    await this.#letRun();
  }

  detach(): void {
    this.#detached = true;
    this.#record.leave();
    this.#stopWatching();
    this.#custody.end();
    this.#telling.end();
    this.#machine.detach();
    this.#notes.close();
  }

  async fence(reason: string): Promise<void> {
    const latest = await this.moving?.settled();
    if (latest !== undefined && latest !== this) return latest.fence(reason);
    if (this.#step === "running")
      await standStill(this.#services, { guest: this.guest, live: this.#live, entry: this.entry });
    if (this.moving !== undefined) return this.fence(reason);
    if (this.#detached) throw new AgentError("not-ready", "this agent is ending; ask again in a moment");
    if (this.entry.phase === "complete") throw isComplete(this.guest);
    await this.#end("failed", new TransferError("rolled-back", reason));
  }

  /** Ends the child and removes all of it. @throws AgentError `bad-state` when it is a complete guest that runs. */
  async cancel(reason: string): Promise<void> {
    const latest = await this.moving?.settled();
    if (latest !== undefined && latest !== this) return latest.cancel(reason);
    if (this.entry.phase === "complete" && this.#step === "running") throw isComplete(this.guest);
    // An earlier agent was told to let it run, or it has ended: it may have run for long, and what it did is nowhere else.
    if ((this.#recovered || this.#ending !== undefined) && migratedAndRan(this.#record.record))
      throw this.#badStep("cancelled");
    await this.#end("cancelled", new TransferError("cancelled", reason));
  }

  #letRun(): Promise<void> {
    // One that was complete may have been given another emulator.
    const { emulator } = this.guest.hasEmulator ? this.guest.live : this.#live;
    const of = { kind: this.#params.kind, log: this.#log, child: this, onRuns: () => this.#noteRuns() };
    this.#lettingRun ??= letRun(emulator, this.guest.config.network, of).finally(
      () => (this.#lettingRun = undefined),
    );
    return this.#lettingRun;
  }

  #noteRuns(): void {
    // Its end may have begun meanwhile; whoever asked must not believe that it runs.
    if (this.#ending !== undefined) throw this.#badStep("run");
    this.#step = "running";
    // Its last page may have come while its emulator was still at it.
    noteRuns(this.guest, { isComplete: this.entry.phase === "complete" });
    this.#custody.end();
    this.#toFilling();
  }

  #toFilling(): void {
    if (this.entry.over || this.entry.phase === "paging") return;
    if (this.#step === "loading") return this.entry.enter("starting");
    this.entry.enter("paging");
    this.#telling.begin();
  }

  /** A fork's child that is loaded and held lives; a migration's does not, because its parent may go on instead. */
  #isAbandonable(): boolean {
    if (this.#detached || this.#ending !== undefined || this.#step === "running") return false;
    // Whether one that an earlier agent was loading has come to run, its emulator says.
    return this.#step === "loading"
      ? !this.#recovered
      : this.#step !== "loaded" || this.#params.kind === "migrate";
  }

  #onEmulatorEnd(why: string): void {
    if (this.entry.over) return;
    const message = `the child's emulator on ${this.#services.configuration.name} ended: ${why}`;
    const error = new TransferError("child-failed", message);
    runAside(this.#log, "end", this.#end("failed", error));
  }

  #onMachineEnd(phase: ChildPhase): void {
    if (this.#ending !== undefined || this.#detached || this.moving !== undefined) return;
    if (phase.phase === "complete" && this.#step !== "prepared") return this.#onMemoryHere();
    if (phase.phase === "complete") {
      const message = "all of its memory came, and nothing to run on it";
      return runAside(this.#log, "end", this.#end("failed", new TransferError("peer-protocol", message)));
    }
    assert(phase.phase === "failed", "a machine ends complete or failed");
    const cancelled = phase.error.code === "cancelled" && this.#params.kind === "fork";
    runAside(this.#log, "end", this.#end(cancelled ? "cancelled" : "failed", phase.error));
  }

  /** To be called until nothing is awaited any more: a child that was migrated with disks keeps its parent until those are here. */
  #onMemoryHere(): void {
    if (this.#ending !== undefined || this.entry.over) return;
    if (this.#disks.any) return this.#telling.tell();
    noteComplete(this.#record, this.#machine, this.#log);
    this.#onComplete();
  }

  #onComplete(): void {
    noteVerified(this.#machine, this.entry, this.#log);
    this.entry.enter("complete");
    this.#leave();
    noteReceived(this.guest, { runs: this.#step === "running" });
    this.#close();
    this.#notes.remove();
    if (this.#lease !== undefined) runAside(this.#log, "lease", this.#lease.end());
    // An emulator that waited for a page too long did not answer; it has all of them now.
    if (this.#record.record.step === "running" && this.#step === "loaded")
      runAside(this.#log, "run", this.#letRun());
  }

  #end(phase: "failed" | "cancelled", error: TransferError): Promise<void> {
    return (this.#ending ??= this.#endNow(phase, error));
  }

  async #endNow(phase: "failed" | "cancelled", error: TransferError): Promise<void> {
    this.#machine.cancel(error);
    if (!this.entry.over) this.entry.enter(phase, { error, message: error.message });
    this.#leave();
    this.#close();
    const hasRunAndFailed = phase === "failed" && this.#step === "running";
    const ended = { guest: this.guest, live: this.#live, record: this.#record, error };
    if (hasRunAndFailed && (await isKept(this.#services, this.#params.kind, ended)))
      return this.#notes.remove();
    // It goes with the child's memory, as the notes do: until then a new agent must know that emulator for a child's.
    this.#record.leave();
    if (hasRunAndFailed) return endCrashed(this.guest, error);
    await this.#services.registry.remove(this.guest, { ran: this.#record.record.step === "running" });
  }

  #close(): void {
    this.#stopWatching();
    this.#precopy?.close();
    this.#custody.end();
    this.#telling.end();
    this.#notes.close();
    this.guest.isHeld = this.entry.phase === "complete" ? undefined : () => true;
    this.#telling.tell();
    this.#onOver();
  }

  #look(): void {
    if (this.moving !== undefined) return;
    if (this.#step === "running" && this.#ending === undefined) this.#lease?.check();
    if (this.#machine.phase.phase === "complete") this.#onMemoryHere();
  }

  /** Why another emulator cannot take it over now, in words. */
  get obstacle(): string | undefined {
    if (this.#ending !== undefined || this.guest.isHeld?.() === true) return "it is not let run, or is ended";
    if (this.#machine.progress().linked) return undefined;
    return `${this.#params.parent.host}, which sends it, is out of reach`;
  }

  /** @throws the error its transfer failed with. */
  requireGoing(): void {
    const { phase } = this.#machine;
    if (phase.phase === "failed") throw phase.error;
    if (this.#ending !== undefined) throw this.#badStep("moved");
  }

  /** Leaves it to a successor in this agent. Returns the connection that commands it. */
  give(): RpcServerSession | undefined {
    this.detach();
    this.#live.memory.fillable().leave();
    this.#leave();
    this.#services.book.drop(this.entry);
    return this.#custody.session;
  }

  /** Sees to what its transfer came to in a move, which is over. */
  settleMove(): void {
    const { phase } = this.#machine;
    if (phase.phase === "complete" || phase.phase === "failed") this.#onMachineEnd(phase);
  }

  get isHeld(): boolean {
    return this.#step === "loaded" && this.#ending === undefined && this.guest.hasEmulator;
  }

  report(session?: RpcServerSession): ChildReport {
    return this.#telling.report(session);
  }

  #canStart(aheadBytes: number | undefined): boolean {
    return this.#step === "prepared" && this.#ending === undefined && this.#loading.continuesAt(aheadBytes);
  }

  #badStep(doing: string): AgentError {
    const step = this.#ending === undefined ? this.#step : "over";
    return badStep(this.#services, this.guest, { record: this.#record.record, step, doing });
  }
}
