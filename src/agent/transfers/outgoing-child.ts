import { deferred, messageOf, withDeadline, type Log } from "../../base/index.js";
import type { AnyEvent, ChildReport } from "../../control/index.js";
import {
  TransferError,
  type ParentSession,
  type PrecopySource,
  type ForkChild,
  type FrameLane,
  type PageDigests,
  type PageLane,
  type ParentStep,
  type ThreadLane,
} from "../../transfer/index.js";
import { DiskWatch } from "./disk-watch.js";
import { Inquiry } from "./inquiry.js";
import { runsThere, toldToRun, verifyError } from "./outgoing-errors.js";
import { entryOf, precopyOf, sessionOf, shareFile, type OutgoingChildOptions } from "./outgoing-parts.js";
import type { LaneTaker } from "./lane-routes.js";
import { PeerChild } from "./peer-child.js";
import { prepareParams } from "./prepare-params.js";
import { Steering } from "./steering.js";
import type { TransferEntry } from "./transfer-entry.js";
import type { ParentRecord } from "./transfer-record.js";

/** So soon after its start a new agent asks whether the child of a fork was loaded. */
const FIRST_ASK_MS = 100;

/** How long the child's last word may be behind its last page, before it is asked for. */
const REPORT_DEADLINE_MS = 500;

/** The parent's side of one child: its entry in the book, its session, the way in for its page lanes, and its host. */
export class OutgoingChild implements ForkChild {
  readonly entry: TransferEntry;
  readonly session: ParentSession;
  readonly target: PeerChild;
  readonly precopy: PrecopySource | undefined;
  readonly #options: OutgoingChildOptions;
  readonly #inquiry: Inquiry;
  readonly #disks: DiskWatch;
  readonly #steering: Steering;
  readonly #closeRoute: () => void;
  #step: ParentStep = "preparing";
  #cancelled: string | undefined;
  #undecided = false;
  #watchesDisks = false;
  #asksWhetherLoaded = false;
  #detached = false;
  readonly #reported = deferred<void>();

  constructor(options: OutgoingChildOptions) {
    const { services, guest } = options;
    const { transfer, token } = options.record.record;
    this.#options = options;
    const log = guest.log.child({ transfer });
    this.entry = entryOf(options);
    this.session = sessionOf(options, log);
    this.precopy = precopyOf(options, log);
    this.target = this.#makeTarget(log);
    this.#inquiry = this.#makeInquiry(log);
    this.#disks = new DiskWatch({
      ask: () => this.target.report(),
      onReport: (report) => this.#note(report),
      linkDeadlineMs: this.record.linkDeadlineMs,
      clock: services.clock,
      log,
    });
    const taker: LaneTaker = {
      holder: () => this.record.holder,
      acceptLane: (lane, epoch, connection, offers) => this.#acceptLane(lane, epoch, connection, offers),
      shareFile: () => shareFile(guest),
    };
    this.#closeRoute = services.routes.open(transfer, token, taker);
    this.#steering = new Steering({
      entry: this.entry,
      session: this.session,
      precopy: this.precopy,
      record: () => this.record,
      keep: (change) => this.#keep(change),
    });
    this.entry.commands = {
      cancel: (reason) => this.#cancel(reason),
      steer: (change) => this.#steering.change(change, this.#step === "paging"),
      run: () => this.#run(),
    };
    this.entry.countFrom(() => this.#count());
    services.book.add(this.entry);
    options.spare?.handTo(taker);
  }

  #acceptLane(
    lane: PageLane | "precopy",
    epoch: number,
    connection: FrameLane | ThreadLane,
    offers: { lz4: boolean },
  ): void {
    if (lane !== "precopy") return this.session.acceptLane(lane, epoch, connection, offers);
    if (this.precopy === undefined || "takeUp" in connection)
      throw new TransferError("peer-protocol", "nothing is copied ahead in this transfer");
    this.precopy.acceptLane(epoch, connection, offers);
  }

  /** Whether it was let go of for the next agent. */
  get detached(): boolean {
    return this.#detached;
  }

  get record(): Readonly<ParentRecord> {
    return this.#options.record.record;
  }

  /** Whether a user ended it. */
  get cancelled(): boolean {
    return this.#cancelled !== undefined;
  }

  onStep(step: ParentStep): void {
    this.#step = step;
    if (step === "paging") this.#toPaging();
    if (!this.entry.over) this.entry.enter(step);
  }

  /** Goes on with the child of an agent that has ended. `decided`: it is known that it runs, if it was migrated. */
  goOn(options: { digests: PageDigests | undefined; decided: boolean }): void {
    const { digests, decided } = options;
    this.session.begin(digests === undefined ? {} : { digests });
    this.session.awaitChild("the agent of the parent was restarted");
    if (!decided) {
      this.markUndecided();
      this.entry.enter("starting");
      return;
    }
    if (this.record.step === "told") {
      // Its device state may never have reached it, and memory alone does not make it a guest.
      this.#asksWhetherLoaded = true;
      this.onStep("starting");
      this.#inquiry.start(FIRST_ASK_MS);
      return;
    }
    this.#goOnPaging();
  }

  #goOnPaging(): void {
    this.#steering.begin();
    this.onStep("paging");
  }

  /** From now on nobody knows whether the child runs; a user may give it up. */
  markUndecided(): void {
    this.#undecided = true;
  }

  /** Lets go of it when the agent ends: its record stays, and the next agent goes on. */
  detach(): void {
    this.#detached = true;
    this.#options.record.leave();
    this.session.detach();
    this.#disks.detach();
    this.#inquiry.stop();
    this.target.close();
  }

  /** Ends it from the parent's side, wherever it stands: the child never comes to be complete. */
  abandon(error: TransferError): void {
    this.session.fail(error);
    this.#disks.fail(error);
  }

  /** It never came to a child that runs, or its child did not start. */
  fail(error: unknown): void {
    if (!this.entry.over) this.entry.enter(this.cancelled ? "cancelled" : "failed", { error });
    this.#close();
  }

  /**
   * Waits until the child has all its memory, and after a migration its disks, or never will. Returns the failure.
   * @param atEnd what is to be done before anybody is told of a good end; should it fail, the transfer is over all the same.
   */
  async finish(atEnd: () => Promise<void> = async () => {}): Promise<TransferError | undefined> {
    const end = await this.session.ended;
    this.#options.services.peers.compression.note(this.record.url, this.session.progress().compression);
    this.#asksWhetherLoaded = false;
    const failure = end.phase === "failed" ? end.error : await this.#whenDisksAreThere();
    if (failure !== undefined) {
      if (!this.entry.over) {
        const phase = this.cancelled ? "cancelled" : "failed";
        this.entry.enter(phase, { error: failure, message: failure.message });
      }
      this.#close();
      return failure;
    }
    this.#keep({ step: "complete" });
    await this.#lastReport();
    const error = this.record.verify ? verifyError(this.entry) : undefined;
    try {
      await atEnd();
    } finally {
      if (!this.entry.over)
        this.entry.enter(error === undefined ? "complete" : "failed", error === undefined ? {} : { error });
      this.#close();
    }
    return undefined;
  }

  /** Only what the parent of a migration has of the disks is to be removed: that of a fork keeps it anyway. */
  async #whenDisksAreThere(): Promise<TransferError | undefined> {
    const { guest } = this.#options;
    if (this.record.kind !== "migrate" || guest.config.disks.length === 0) return undefined;
    this.#watchesDisks = true;
    const message = `all of its memory is on ${this.entry.host}; its disks are still being sent`;
    if (!this.entry.over) this.entry.enter("paging", { message });
    return this.#disks.wait();
  }

  /** The child's last word comes over another connection than its last page, or has to be asked for where that was lost. */
  async #lastReport(): Promise<void> {
    const { clock } = this.#options.services;
    const awaited = "the child's last report";
    try {
      await withDeadline(clock, REPORT_DEADLINE_MS, awaited, this.#reported.promise);
    } catch {
      try {
        this.#note(await this.target.report());
      } catch (error) {
        this.#options.guest.log.warn(
          { problem: messageOf(error) },
          "the child's host does not tell how its child fared",
        );
      }
    }
  }

  #close(): void {
    this.#closeRoute();
    this.#inquiry.stop();
    this.target.close();
    this.#options.record.remove();
  }

  #toPaging(): void {
    this.#undecided = false;
    this.#inquiry.start();
    this.#keep({ step: "paging" });
  }

  #keep(change: Partial<ParentRecord>): void {
    try {
      this.#options.record.update(change);
    } catch (error) {
      this.#options.guest.log.warn(
        { problem: messageOf(error) },
        "a transfer's record could not be brought up to date",
      );
    }
  }

  #makeTarget(log: Log): PeerChild {
    const { services, record: file } = this.#options;
    const { clock } = services;
    const { record } = file;
    return new PeerChild({
      transfer: record.transfer,
      kind: record.kind,
      paused: record.paused,
      peers: services.peers,
      url: record.url,
      host: record.host,
      ...this.#making(),
      holder: record.holder,
      onAgreed: (holder) => file.update({ holder }),
      onTelling: () => file.update({ step: "told", peerGuest: this.entry.peerGuest }),
      onStarted: () => this.#steering.begin(),
      onNamed: (name) => (this.entry.peerGuest = name),
      onEvent: (event) => this.#onEvent(event),
      isOver: () => this.#detached || this.session.phase.phase === "failed",
      clock,
      log,
    });
  }

  #makeInquiry(log: Log): Inquiry {
    const { clock } = this.#options.services;
    return new Inquiry({
      ask: () => this.target.report(),
      isDue: () => this.#asksWhetherLoaded || this.session.phase.phase === "waiting-for-child",
      onReport: (report) => this.#onAsked(report),
      onGone: (message) => this.session.fail(new TransferError("child-failed", message)),
      clock,
      log,
    });
  }

  #making() {
    const { making } = this.#options;
    if (making === undefined) return {};
    const { services, guest, record } = this.#options;
    const prepare = prepareParams({ services, guest, record: record.record, ...making });
    return { making: { prepare, names: making.names } };
  }

  /** The child's host says how the child is. */
  #onAsked(report: ChildReport): void {
    this.#note(report);
    if (report.phase === "starting") return;
    if (report.awaitsDisks === true) return this.session.conclude();
    const wasLoaded = report.phase === "paging" || report.phase === "complete";
    if (this.#asksWhetherLoaded && wasLoaded) this.#goOnPaging();
    this.#asksWhetherLoaded = false;
    const why = report.message ?? `its host says that it is ${report.phase}`;
    switch (report.phase) {
      case "complete":
        return this.session.conclude();
      case "failed":
      case "cancelled":
        return this.session.fail(new TransferError("child-failed", why));
      case "preparing":
        return this.#neverLoaded();
      default:
    }
  }

  #neverLoaded(): void {
    const message = "the parent's agent ended before the child had its device state";
    this.session.fail(new TransferError("child-failed", message));
    this.target.cancel(message).catch((error: unknown) => {
      this.#options.guest.log.warn({ problem: messageOf(error) }, "a child that never ran stays prepared");
    });
  }

  async #cancel(reason: string): Promise<void> {
    const { kind, step } = this.record;
    if (this.#step !== "paging" && !this.#asksWhetherLoaded) {
      if (kind === "migrate" && step === "told" && !this.#undecided) throw toldToRun(this.entry);
      this.#cancelled = reason;
      this.#options.abort(reason);
      return;
    }
    if (kind === "migrate") return this.#giveUp(reason);
    this.#cancelled = reason;
    this.session.fail(new TransferError("cancelled", reason));
    await this.target.cancel(reason);
  }

  /** A migrated guest that is out of reach may be given up, for its parent to be let run on; one that is there may not. */
  #giveUp(reason: string): void {
    const isAway = this.session.phase.phase === "waiting-for-child" || this.#disks.lost !== undefined;
    if (!isAway) throw runsThere(this.entry);
    const { host } = this.entry;
    this.#cancelled = reason;
    this.abandon(new TransferError("link-lost", `${host} is out of reach and was given up: ${reason}`));
  }

  async #run(): Promise<void> {
    await this.target.letRun();
  }

  #count() {
    const { copies } = this.#options.instant;
    this.entry.facts.copies = { pages: copies.pages, budgetPages: copies.budgetPages };
    const progress = this.session.progress();
    if (this.#watchesDisks) {
      const { lost } = this.#disks;
      Object.assign(progress, { linked: lost === undefined, lost });
    }
    if (this.precopy === undefined) return progress;
    const { round, sent, due, bytes, linked } = this.precopy.progress();
    this.entry.facts.precopy = { round, sent, due };
    progress.bulkBytes += bytes;
    return this.#step === "precopying" ? { ...progress, received: progress.total - due, linked } : progress;
  }

  #onEvent(event: AnyEvent): void {
    if (event.event === "peerTransfer" && event.data.transfer === this.entry.transfer) this.#note(event.data);
  }

  #note(report: ChildReport): void {
    const { verify, faults, duplicates, disks } = report;
    if (disks !== undefined) this.entry.facts.disks = disks;
    else delete this.entry.facts.disks;
    if (verify !== undefined) this.entry.facts.verify = verify;
    if (faults !== undefined) this.entry.facts.faults = faults;
    if (duplicates !== undefined) this.entry.facts.duplicates = duplicates;
    if (report.phase === "complete") this.#reported.resolve();
  }
}
