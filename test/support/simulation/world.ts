import { SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  ChildMachine,
  forkGuest,
  Instant,
  migrateGuest,
  ParentSession,
  TransferError,
  type ChildTarget,
  type FrameLane,
  type ParentEmulator,
} from "../../../src/transfer/index.js";
import { SimulatedCopies, SimulatedNotes } from "./kept.js";
import { isOver, type SimulatedChild } from "./child.js";
import { simulatedLane } from "./lane.js";
import { contentOf, SimulatedMemory } from "./memory.js";
import { planOf, type Plan } from "./plan.js";
import { Scheduler } from "./scheduler.js";

const log = silentLog;
/** Writers never rest, so a run that waits for dialling alone has many events. */
const MAX_EVENTS = 3_000_000;

/** One parent, its children, and the seed that decides everything that happens to them. */
export class World {
  readonly plan: Plan;
  readonly scheduler: Scheduler;
  readonly #random: SeededRandom;
  readonly #parent: SimulatedMemory;
  readonly #instant: Instant;
  readonly #children: SimulatedChild[] = [];
  readonly #abort = new AbortController();
  readonly #lanes: ReturnType<typeof simulatedLane>[] = [];
  #running = true;
  #writing = 0;
  #version = 1;
  #oracle: Uint8Array[] | undefined;
  #ended = false;
  #failure: unknown;
  #outcomes = 0;

  constructor(seed: number, plan?: Partial<Plan>) {
    this.#random = new SeededRandom(seed);
    this.plan = { ...planOf(this.#random), ...plan };
    this.scheduler = new Scheduler(this.#random);
    this.#parent = new SimulatedMemory(this.scheduler, this.plan.pages);
    for (let page = 0; page < this.plan.pages; page += 1) {
      if (this.#random.chance(this.plan.holes)) continue;
      this.#parent.place(page, contentOf(page, this.#random.chance(0.1) ? 0 : (this.#version += 1)));
    }
    this.#instant = new Instant({
      memory: this.#parent,
      copies: new SimulatedCopies(),
      copyBudgetBytes: this.plan.copyBudgetPages * 4096,
      tracking: !this.plan.migrate,
      clock: this.scheduler,
      log,
    });
    for (let index = 0; index < this.plan.children; index += 1)
      this.#children.push(this.#makeChild(index + 1));
  }

  /** Plays the whole run and checks every promise at its end. Throws when one is broken. */
  async play(): Promise<void> {
    for (let writer = 0; writer < this.plan.writers; writer += 1) this.#parentWrites();
    this.#scheduleTrouble();
    this.scheduler.checkInvariants = () => this.#checkInvariants();
    const transfer = this.plan.migrate ? this.#migrate() : this.#fork();
    transfer.catch(() => {});
    await this.scheduler.runUntil(() => this.#ended, MAX_EVENTS);
    if (this.#failure !== undefined) this.#checkFailure(this.#failure);
    await this.scheduler.runUntil(() => this.#children.every((child) => isOver(child)), MAX_EVENTS);
    this.#checkEnd();
  }

  /** Where everything stands, for the message of a failing seed. */
  describe(): object {
    const children = this.#children.map((child) => ({
      running: child.running,
      machine: child.machine.phase.phase,
      session: child.session.phase.phase,
      waiting: child.memory.waiters,
      child: child.machine.progress(),
      parent: child.session.progress(),
    }));
    return {
      atUs: this.scheduler.nowUs(),
      instant: this.#instant.phase,
      copies: this.#instant.copies,
      running: this.#running,
      children,
    };
  }

  /** How the run ended, for statistics: `complete`, or the code it failed with. */
  get result(): string {
    if (this.#failure !== undefined)
      return this.#failure instanceof TransferError ? this.#failure.code : "other";
    const reconnected = this.#children.some((child) => child.machine.progress().reconnects > 0)
      ? " after lost lanes"
      : "";
    return (this.#outcomes === this.plan.children ? "complete" : "partly") + reconnected;
  }

  async #fork(): Promise<void> {
    try {
      const { scheduler: clock, plan } = this;
      const outcome = await forkGuest({
        emulator: this.#emulator(),
        memory: this.#parent,
        instant: this.#instant,
        children: this.#children,
        verify: plan.verify,
        paused: false,
        clock,
        log,
        onStep: () => {},
        signal: this.#abort.signal,
      });
      this.#outcomes = outcome.children.filter((child) => "started" in child).length;
      this.#liftHolds();
    } catch (thrown) {
      this.#failure = thrown;
    }
    this.#ended = true;
  }

  async #migrate(): Promise<void> {
    try {
      await migrateGuest({
        emulator: this.#emulator(),
        memory: this.#parent,
        instant: this.#instant,
        child: this.#children[0] as SimulatedChild,
        network: { detach: () => this.#lag(undefined), attach: () => this.#lag(undefined) },
        verify: this.plan.verify,
        clock: this.scheduler,
        log,
        onStep: () => {},
        signal: this.#abort.signal,
      });
      this.#outcomes = 1;
      this.#liftHolds();
    } catch (thrown) {
      this.#failure = thrown;
    }
    this.#ended = true;
  }

  #liftHolds(): void {
    for (const child of this.#children) {
      if (this.plan.touchers === 0 || !child.running)
        this.scheduler.afterUs(this.#random.below(20_000), () => child.session.setSweep(true));
    }
  }

  #emulator(): ParentEmulator {
    return {
      prepareDeviceState: () => this.#lag(undefined),
      stop: async () => {
        await this.#lag(undefined);
        this.#running = false;
        // A processor that waits for a page holds up the stop, as it does in the emulator.
        while (this.#writing > 0) await this.#lag(undefined);
        return { stoppedAtUs: this.scheduler.nowUs() };
      },
      saveDeviceState: async () => {
        await this.#lag(undefined);
        if (this.#random.chance(this.plan.saveWrites)) await this.#writeOnce();
        if (this.#random.chance(this.plan.saveFails))
          throw new TransferError("parent-failed", "the simulated save failed");
        this.#oracle = Array.from({ length: this.plan.pages }, (_, page) =>
          this.#parent.content(page).slice(),
        );
        return { compose: () => new Uint8Array(8) };
      },
      resume: async () => {
        await this.#lag(undefined);
        this.#running = true;
        for (let writer = 0; writer < this.plan.writers; writer += 1) this.#parentWrites();
        return { resumedAtUs: this.scheduler.nowUs() };
      },
    };
  }

  #writeOnce(): Promise<void> {
    const page = this.#random.below(this.plan.pages);
    return new Promise((resolve) => this.#parent.touch(page, contentOf(page, (this.#version += 1)), resolve));
  }

  #parentWrites(): void {
    if (!this.#running || (this.#ended && this.#children.every((child) => isOver(child)))) return;
    const page = this.#random.below(this.plan.pages);
    this.#writing += 1;
    this.#version += 1;
    this.#parent.touch(page, contentOf(page, this.#random.chance(0.1) ? 0 : this.#version), () => {
      this.#writing -= 1;
      this.scheduler.afterUs(this.#random.below(this.plan.restUs), () => this.#parentWrites());
    });
  }

  #makeChild(transfer: number): SimulatedChild {
    const { scheduler: clock, plan } = this;
    const memory = new SimulatedMemory(clock, plan.pages);
    const instant = this.#instant;
    const { compress, sweep, maxWindowBytes } = plan;
    const session = new ParentSession({ transfer, instant, clock, log, compress, sweep, maxWindowBytes });
    const dial = (name: "urgent" | "bulk", epoch: number) => this.#dial(session, name, epoch);
    const machine = new ChildMachine({
      transfer,
      memory,
      dial,
      clock,
      log,
      verify: plan.verify,
      notes: new SimulatedNotes(plan.pages),
    });
    if (plan.outOfMemoryAfter !== undefined && transfer === 1) memory.installsLeft = plan.outOfMemoryAfter;
    const child: SimulatedChild = {
      session,
      machine,
      memory,
      running: false,
      cancelled: false,
      own: new Map(),
      untouched: Array.from({ length: plan.pages }, (_, page) => page),
      target: this.#makeTarget(transfer, () => child),
    };
    return child;
  }

  #makeTarget(transfer: number, child: () => SimulatedChild): ChildTarget {
    const start = async (run: boolean) => {
      await this.#lag(undefined);
      if (child().cancelled) throw new TransferError("child-failed", "the simulated child was cancelled");
      if (run) {
        child().running = true;
        for (let toucher = 0; toucher < this.plan.touchers; toucher += 1) this.#childTouches(child());
      }
      await this.#lag(undefined);
      if (this.#random.chance(this.plan.answersLost))
        throw new TransferError("child-failed", "the simulated answer was lost");
      return { loadUs: 1, runUs: 1 };
    };
    return {
      transfer,
      host: `host-${transfer}`,
      prepare: async () => {
        await this.#lag(undefined);
        if (this.#random.chance(this.plan.prepareFails))
          throw new TransferError("child-failed", "the simulated host is full");
        child().machine.start();
        this.#tellOfFailure(child());
      },
      start: async (_state, { run }) => {
        if (this.#random.chance(this.plan.startFails))
          throw new TransferError("child-failed", "the simulated child did not load");
        return start(run);
      },
      run: () => start(true),
      cancel: async (reason) => {
        await this.#lag(undefined);
        if (this.#random.chance(this.plan.answersLost))
          throw new TransferError("child-failed", "the simulated answer was lost");
        child().cancelled = true;
        child().running = false;
        child().machine.cancel(new TransferError("cancelled", reason));
      },
    };
  }

  /** What agents tell each other on the control lane, since the page lanes may be down when a child fails. */
  #tellOfFailure({ machine, session }: SimulatedChild): void {
    const tell = async () => {
      const phase = await machine.ended;
      if (phase.phase !== "failed") return;
      await this.#lag(undefined);
      session.fail(new TransferError("child-failed", phase.error.message));
    };
    tell().catch(() => {});
  }

  async #dial(session: ParentSession, name: "urgent" | "bulk", epoch: number): Promise<FrameLane> {
    await this.#lag(undefined);
    if (this.#random.chance(this.plan.dialFails))
      throw Object.assign(new Error("the simulated dial failed"), { code: "unreachable" });
    const lane = simulatedLane(this.scheduler, this.plan.bytesPerUs);
    this.#lanes.push(lane);
    try {
      session.acceptLane(name, epoch, lane.parent);
    } catch (thrown) {
      const fatal = session.phase.phase === "failed";
      throw Object.assign(new Error("refused", { cause: thrown }), { code: "refused", fatal });
    }
    await this.#lag(undefined);
    return lane.child;
  }

  #scheduleTrouble(): void {
    for (let index = 0; index < this.plan.breaks; index += 1) {
      this.scheduler.afterUs(this.#random.below(30_000), () => {
        const open = this.#lanes.filter((lane) => lane.isOpen());
        if (open.length > 0) this.#random.pick(open).break();
      });
    }
    if (this.plan.cancelAtUs !== undefined)
      this.scheduler.afterUs(this.plan.cancelAtUs, () => this.#abort.abort());
  }

  #childTouches(child: SimulatedChild): void {
    if (!child.running) return;
    const page = this.#nextTouch(child);
    const mine = this.#random.chance(0.4) ? contentOf(page, (this.#version += 1)) : undefined;
    child.memory.touch(page, mine, () => {
      if (mine !== undefined) child.own.set(page, mine);
      else this.#checkPage(child, page);
      if (isOver(child)) return;
      this.scheduler.afterUs(this.#random.below(this.plan.restUs), () => this.#childTouches(child));
    });
  }

  #checkInvariants(): void {
    const { pages, budgetPages, waitingWriters } = this.#instant.copies;
    if (pages > budgetPages) throw new Error(`${pages} copies are more than the budget of ${budgetPages}`);
    if (waitingWriters > 0 && pages < budgetPages)
      throw new Error("a writer waits although the budget has room");
    for (const { session } of this.#children) {
      const { received, total } = session.progress();
      if (received > total) throw new Error("more pages were received than there are");
    }
  }

  #checkPage(child: SimulatedChild, page: number): void {
    const expected = child.own.get(page) ?? this.#oracle?.[page];
    if (expected === undefined) throw new Error(`a child ran before the instant`);
    if (Buffer.compare(child.memory.content(page), expected) !== 0) {
      throw new Error(`page ${page} of child ${child.target.transfer} is not what it was at the instant`);
    }
  }

  /** Every page once, in an order of the seed's; then any page again, and the sweep may go on. */
  #nextTouch(child: SimulatedChild): number {
    if (child.untouched.length === 0) {
      child.session.setSweep(true);
      return this.#random.below(this.plan.pages);
    }
    return child.untouched.splice(this.#random.below(child.untouched.length), 1)[0] as number;
  }

  #checkFailure(failure: unknown): void {
    if (!(failure instanceof TransferError)) throw failure;
    if (failure.code === "undecided") {
      if (this.#running) throw new Error("the parent runs although the child may run");
      this.#ended = true;
      for (const { session } of this.#children) session.fail(failure);
      return;
    }
    if (!this.#running) throw new Error("the transfer failed and the parent does not run");
    if (!this.plan.migrate) return;
    if (this.#children.some((child) => child.running))
      throw new Error("parent and child of a failed migration both run");
  }

  #checkEnd(): void {
    if (this.#instant.phase !== "released") throw new Error(`the instant is left ${this.#instant.phase}`);
    if (!this.#parent.quiet && !this.plan.migrate) throw new Error("the parent's memory is left protected");
    for (const child of this.#children) {
      const { machine, memory } = child;
      if (machine.phase.phase !== "complete") continue;
      if (!memory.quiet) throw new Error("the child's memory is left registered");
      for (let page = 0; page < this.plan.pages; page += 1) this.#checkPage(child, page);
      if (this.plan.verify && machine.verify?.mismatches !== 0) throw new Error("the digests differ");
    }
    if (this.plan.migrate && this.#running && this.#children.some((child) => child.running)) {
      throw new Error("parent and child of a migration both run");
    }
  }

  /** Lets some time pass, as everything that crosses a process or a network does. */
  #lag<T>(value: T): Promise<T> {
    return new Promise((resolve) => this.scheduler.afterUs(this.#random.below(400), () => resolve(value)));
  }
}
