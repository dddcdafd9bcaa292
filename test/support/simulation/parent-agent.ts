import { CodedError, codeOf, silentLog, sleep } from "../../../src/base/index.js";
import {
  forkGuest,
  Instant,
  migrateGuest,
  ParentSession,
  type PrecopySource,
  TransferError,
  type ChildTarget,
  type FrameLane,
  type PageDigests,
  type PageLane,
} from "../../../src/transfer/index.js";
import type { ChildAgent } from "./child-agent.js";
import { aheadOf } from "./ahead.js";
import { copyAhead } from "./copy-ahead.js";
import { emulatorOf } from "./emulator.js";
import { urgentLane } from "./fault-thread.js";
import type { Life, SimulatedHost } from "./host.js";
import { SimulatedCopies } from "./kept.js";
import { compressionOf, Orders } from "./orders.js";
import { copiesOf, trackedBy } from "./mortal.js";
import { ASK_MS, SimulatedPeer } from "./peer.js";
import { SimulatedRefusal } from "./network.js";
import { linkRelays } from "./relays.js";
import type { ParentAgentOptions, ParentRecord } from "./parent-record.js";

/** A parent as the agents of its host treat it, one after the other: the first is told to fork or migrate it, the others go on with what they find. */
export class ParentAgent {
  readonly host: SimulatedHost;
  readonly #options: ParentAgentOptions;
  readonly #copies = new SimulatedCopies();
  readonly #records = new Map<number, ParentRecord>();
  readonly orders = new Orders((transfer) =>
    this.host.life === undefined ? undefined : this.#sessions.get(transfer),
  );
  #digests: PageDigests | undefined;
  /** The guest has moved away, and was removed here. */
  #gone = false;
  #begun = false;
  /** Of the present life. */
  #instant: Instant | undefined;
  #sessions = new Map<number, ParentSession>();
  #ahead: PrecopySource | undefined;
  #ready = false;
  #busy = false;
  /** What the fork or migration failed with, as its operator was told. */
  failure: unknown;
  /** The operator was told that children were started. */
  started = false;
  /** Children that were cancelled, or whose start failed as far as the parent knows. */
  readonly givenUp = new Set<number>();
  /** Pages swept to each child of a fork by the agent that saw its end. */
  readonly swept = new Map<number, number>();

  constructor(options: ParentAgentOptions) {
    this.#options = options;
    this.host = options.host;
    this.host.add((life) => this.#start(life));
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** The parent of a migration that is stopped for its operator to decide. */
  get stays(): boolean {
    return [...this.#records.values()].some((record) => record.stays);
  }

  /** Copies in the file, whoever took them. */
  get copies(): number {
    return [...this.#copies.pages()].length;
  }

  get instant(): Instant | undefined {
    return this.host.life === undefined ? undefined : this.#instant;
  }

  get sessions(): readonly ParentSession[] {
    return this.host.life === undefined ? [] : [...this.#sessions.values()];
  }

  /** True when no agent has anything left to do for any child. */
  get over(): boolean {
    if (this.host.life === undefined || !this.#ready || this.#busy) return false;
    return [...this.#records.values()].every((record) => record.stays);
  }

  describe(): object {
    const records = Object.fromEntries(this.#records);
    const sessions = this.sessions.map(({ phase, owedCount }) => ({ phase, owedCount }));
    const { running } = this.#options.guest;
    return {
      records,
      running,
      gone: this.#gone,
      busy: this.#busy,
      copies: this.copies,
      instant: this.instant?.phase,
      sessions,
    };
  }

  /** A page lane that a child has dialled. */
  accept(there: Life, child: ChildAgent, dialled: { lane: PageLane; epoch: number; end: FrameLane }): void {
    if (!this.#ready) throw new SimulatedRefusal("not-ready", "the agent has just been started");
    const session = this.#sessions.get(child.transfer);
    if (session === undefined || !there.alive)
      throw new SimulatedRefusal("no-such-transfer", "there is no such transfer here", { fatal: true });
    try {
      const { lane, epoch, end } = dialled;
      session.acceptLane(lane, epoch, lane === "urgent" ? urgentLane(there, this.#options, end) : end);
    } catch (cause) {
      const fatal = session.phase.phase === "failed";
      throw new SimulatedRefusal("failed", "the lane was refused", { fatal, cause });
    }
  }

  /** The lane that a child has dialled for what is copied ahead. */
  acceptAhead(epoch: number, end: FrameLane): void {
    if (!this.#ready) throw new SimulatedRefusal("not-ready", "the agent has just been started");
    if (this.#ahead === undefined)
      throw new SimulatedRefusal("no-such-transfer", "nothing is copied ahead here", { fatal: true });
    this.#ahead.acceptLane(epoch, end);
  }

  #start(life: Life): void {
    this.#ready = false;
    this.#busy = true;
    this.#instant = undefined;
    this.#ahead = undefined;
    this.#sessions = new Map();
    const first = !this.#begun;
    this.#begun = true;
    const work = first ? this.#command(life) : this.#recover(life);
    work.then(
      () => void (life.alive && (this.#busy = false)),
      (error: unknown) => this.#options.scheduler.fail(error),
    );
  }

  async #command(life: Life): Promise<void> {
    const { children, plan } = this.#options;
    for (const { transfer } of children)
      this.#records.set(transfer, { told: false, decided: false, stays: false });
    const instant = new Instant(this.#instantOptions(life));
    this.#open(life, instant, children);
    this.#ready = true;
    try {
      await (plan.migrate ? this.#migrate(life, instant) : this.#fork(life, instant));
      this.started = true;
    } catch (thrown) {
      if (!(thrown instanceof CodedError) || codeOf(thrown) === "internal") throw thrown;
      this.failure = thrown;
      if (codeOf(thrown) === "undecided") return this.#settle(life);
      if (life.acts()) this.#records.clear();
    }
  }

  async #fork(life: Life, instant: Instant): Promise<void> {
    const { children, plan, signal } = this.#options;
    await forkGuest({
      emulator: emulatorOf(life, this.#options),
      memory: trackedBy(life, this.#options.guest.memory),
      instant,
      children: children.map((child) => ({
        target: this.#target(life, child),
        session: this.#session(child),
      })),
      verify: plan.verify,
      arrivedUs: life.clock.nowUs(),
      onDigests: (digests) => this.#keepDigests(life, digests),
      paused: false,
      clock: life.clock,
      log: silentLog,
      onStep: (step) => {
        if (step !== "starting") return;
        for (const child of children)
          if (this.#session(child).phase.phase !== "failed") this.#tell(life, child);
      },
      onPrepared: () => linkRelays(life, this.#options, (child) => this.#session(child)),
      signal,
    });
  }

  async #migrate(life: Life, instant: Instant): Promise<void> {
    const child = this.#options.children[0] as ChildAgent;
    const session = this.#session(child);
    const isOver = () => this.#records.get(child.transfer)?.told !== false;
    const peer = new SimulatedPeer(this.#options.network, life, child);
    if (this.#options.plan.precopy) this.#ahead = copyAhead({ ...this.#options, life, peer, isOver });
    await migrateGuest({
      emulator: emulatorOf(life, this.#options),
      memory: trackedBy(life, this.#options.guest.memory),
      instant,
      child: { target: this.#target(life, child), session },
      ...(this.#ahead === undefined ? {} : { precopy: this.#ahead }),
      network: { detach: () => life.lag(), attach: () => life.lag() },
      verify: this.#options.plan.verify,
      onDigests: (digests) => this.#keepDigests(life, digests),
      clock: life.clock,
      log: silentLog,
      onStep: () => {},
      signal: this.#options.signal,
    });
    this.#decide(life, child, session);
  }

  /** A new agent goes on with transfers whose children may run, and takes back all else. */
  async #recover(life: Life): Promise<void> {
    const { children, guest, plan } = this.#options;
    await life.look();
    if (this.#gone && life.acts()) this.#records.clear();
    if (this.#gone || this.stays) {
      this.#ready = true;
      return;
    }
    const told = children.filter(({ transfer }) => this.#records.get(transfer)?.told === true);
    // What was copied ahead of a migration is protected; its parent is stopped, and runs on only if it is to stay.
    if (told.length === 0 || plan.migrate) trackedBy(life, guest.memory).release();
    if (told.length === 0) {
      if (life.acts()) this.#copies.clear();
    } else {
      const instant = Instant.recover(this.#instantOptions(life));
      this.#open(life, instant, told);
    }
    for (const transfer of this.#records.keys())
      if (!this.#sessions.has(transfer) && life.acts()) this.#records.delete(transfer);
    this.#ready = true;
    if (!plan.migrate || told.length === 0) {
      await guest.runOn(life);
      for (const child of told) this.#follow(life, child, this.#session(child));
      return;
    }
    const child = told[0] as ChildAgent;
    const session = this.#session(child);
    if (this.#records.get(child.transfer)?.decided === true) this.#followMigrated(life, child, session);
    else await this.#settle(life);
  }

  #instantOptions(life: Life) {
    const { guest, plan } = this.#options;
    return {
      memory: trackedBy(life, guest.memory),
      copies: copiesOf(life, this.#copies),
      copyBudgetBytes: plan.copyBudgetPages * 4096,
      tracking: !plan.migrate && guest.exists,
      clock: life.clock,
      log: silentLog,
    };
  }

  #open(life: Life, instant: Instant, children: readonly ChildAgent[]): void {
    const { plan, workingSet: encoded } = this.#options;
    this.#instant = instant;
    const recovered = instant.phase === "frozen";
    for (const { transfer } of children) {
      const session = new ParentSession({
        transfer,
        instant,
        clock: life.clock,
        log: silentLog,
        compress: compressionOf(plan),
        maxWindowBytes: plan.maxWindowBytes,
        ahead: aheadOf(life.clock, { pageCount: plan.pages, encoded }, { recovered }),
        ...this.orders.of(transfer, plan),
      });
      this.#sessions.set(transfer, session);
      if (recovered) session.begin(this.#digests === undefined ? {} : { digests: this.#digests });
      if (!plan.migrate) this.#forgetAtEnd(life, transfer, session);
    }
  }

  #forgetAtEnd(life: Life, transfer: number, session: ParentSession): void {
    void life.hear(session.ended).then((phase) => {
      this.swept.set(transfer, session.progress().sweep);
      this.#checkLoss(transfer, phase.phase === "failed" ? phase.error : undefined);
      if (life.acts()) this.#records.delete(transfer);
    });
  }

  /** A page that is owed and not here any more is the worst there is, whatever else went wrong. */
  #checkLoss(transfer: number, error: TransferError | undefined): void {
    if (error?.code === "parent-failed" && !this.givenUp.has(transfer)) this.#options.scheduler.fail(error);
  }

  #session({ transfer }: ChildAgent): ParentSession {
    return this.#sessions.get(transfer) as ParentSession;
  }

  #tell(life: Life, child: ChildAgent): void {
    const record = this.#records.get(child.transfer);
    if (record === undefined || !life.acts()) return;
    record.told = true;
    this.#options.onTold();
    if (!this.#options.plan.migrate) this.#follow(life, child, this.#session(child));
  }

  #keepDigests(life: Life, digests: PageDigests): void {
    if (life.acts()) this.#digests = digests;
  }

  /** Looks after a child that is out of reach: it may be gone, or complete without having been able to say so. */
  #follow(life: Life, child: ChildAgent, session: ParentSession): void {
    const isOver = () => session.phase.phase === "complete" || session.phase.phase === "failed";
    const follow = async (): Promise<void> => {
      for (;;) {
        await sleep(life.clock, ASK_MS);
        if (isOver()) return;
        if (session.phase.phase === "linked") continue;
        const view = await new SimulatedPeer(this.#options.network, life, child).show();
        if (view === "gone" || (view !== undefined && view.failed))
          session.fail(new TransferError("child-failed", "the child's host does not have it any more"));
        else if (view?.complete === true) session.conclude();
      }
    };
    follow().catch((error: unknown) => this.#options.scheduler.fail(error));
  }

  #decide(life: Life, child: ChildAgent, session: ParentSession): void {
    const record = this.#records.get(child.transfer);
    if (record === undefined || !life.acts()) return;
    record.decided = true;
    this.givenUp.delete(child.transfer);
    this.#followMigrated(life, child, session);
  }

  #followMigrated(life: Life, child: ChildAgent, session: ParentSession): void {
    this.#follow(life, child, session);
    void life.hear(session.ended).then((phase) => {
      const error = phase.phase === "failed" ? phase.error : undefined;
      this.#checkLoss(child.transfer, error);
      const record = this.#records.get(child.transfer);
      if (!life.acts() || record === undefined) return;
      if (error === undefined) {
        this.#gone = true;
        if (life.acts()) this.#records.delete(child.transfer);
      } else {
        record.stays = true;
        this.#instant?.release();
      }
    });
  }

  /** Asks until it is known whether a migration's child runs. The parent runs on only when the child is gone. */
  async #settle(life: Life): Promise<void> {
    const child = this.#options.children[0] as ChildAgent;
    const session = this.#session(child);
    const peer = new SimulatedPeer(this.#options.network, life, child);
    for (;;) {
      await sleep(life.clock, ASK_MS);
      try {
        await peer.run();
        return this.#decide(life, child, session);
      } catch (error) {
        const code = codeOf(error);
        if (code === "bad-state") await this.#cancel(peer);
        if (code !== "no-such-transfer") continue;
      }
      this.givenUp.add(child.transfer);
      session.fail(new TransferError("cancelled", "the child is gone"));
      this.#instant?.release();
      await this.#options.guest.resume(life);
      if (life.acts()) this.#records.clear();
      return;
    }
  }

  #target(life: Life, child: ChildAgent): ChildTarget {
    const peer = new SimulatedPeer(this.#options.network, life, child);
    return {
      transfer: child.transfer,
      host: child.host.name,
      prepare: () => peer.prepare(),
      sendAhead: () => life.lag(),
      start: async (_state, options) => {
        try {
          const started = await peer.start(options);
          this.#session(child).childRuns();
          return started;
        } catch (error) {
          if (!this.#options.plan.migrate) this.givenUp.add(child.transfer);
          throw error;
        }
      },
      run: () => {
        this.#tell(life, child);
        return peer.run({ answerMayBeLost: true });
      },
      cancel: () => this.#cancel(peer, { answerMayBeLost: true }),
    };
  }

  #cancel(peer: SimulatedPeer, options = { answerMayBeLost: false }): Promise<void> {
    this.givenUp.add(peer.child.transfer);
    return peer.cancel(options);
  }
}
