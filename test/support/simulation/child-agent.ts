import { silentLog, sleep, type Bitmap } from "../../../src/base/index.js";
import {
  ChildMachine,
  PrecopySink,
  TransferError,
  type ChildStarted,
  type FrameLane,
  type RelayBranch,
} from "../../../src/transfer/index.js";
import { SimulatedThread } from "./fault-thread.js";
import { SimulatedGuest } from "./guest.js";
import type { Life, SimulatedHost } from "./host.js";
import { SimulatedNotes } from "./kept.js";
import { SimulatedMemory } from "./memory.js";
import { filledBy, joinedBy, notesOf, writtenBy } from "./mortal.js";
import { SimulatedRefusal, type SimulatedNetwork } from "./network.js";
import type { ParentAgent } from "./parent-agent.js";
import type { Plan } from "./plan.js";
import type { Scheduler } from "./scheduler.js";

/** How long a child that nobody has told to run waits for its parent's agent to be heard of again, in ms. */
const ABANDONED_MS = 40;
/** Epochs of one life's machine; see `ChildMachineOptions.recovered`. */
const EPOCHS_PER_LIFE = 65_536;

/** What lies on the child's host's disk. `failed` is a migrated guest that ran and can never be completed: it is kept, stopped. */
interface ChildRecord {
  step: "prepared" | "loaded";
  incarnation: number;
  complete: boolean;
  failed: boolean;
}

/** What the child's host answers about it. */
export interface ChildView {
  running: boolean;
  complete: boolean;
  failed: boolean;
}

export interface ChildAgentOptions {
  transfer: number;
  plan: Plan;
  host: SimulatedHost;
  network: SimulatedNetwork;
  scheduler: Scheduler;
  /** The child executes its first instruction, or runs on. */
  onRun(child: ChildAgent): void;
}

/** One child as the agents of its host treat it, one after the other: what they write down, and what a new one makes of that. */
export class ChildAgent {
  readonly transfer: number;
  readonly host: SimulatedHost;
  readonly #options: ChildAgentOptions;
  readonly #notes: SimulatedNotes;
  #parent: ParentAgent | undefined;
  #guest: SimulatedGuest | undefined;
  #record: ChildRecord | undefined;
  #machine: ChildMachine | undefined;
  #ahead: PrecopySink | undefined;
  #branches = new Map<number, RelayBranch>();
  #ready = false;
  #loading = false;
  #heardOf = 0;
  #waits = 0;
  #highestEpoch = 0;
  #everRan = false;
  reconnects = 0;
  touches = 0;
  /** Pages that another child has passed on to it, in all lives. */
  relayed = 0;
  /** Pages the child wrote itself, as it last did. */
  readonly own = new Map<number, Uint8Array>();
  readonly untouched: number[];

  constructor(options: ChildAgentOptions) {
    this.transfer = options.transfer;
    this.host = options.host;
    this.#options = options;
    this.#notes = new SimulatedNotes(options.plan.pages);
    this.untouched = Array.from({ length: options.plan.pages }, (_, page) => page);
    options.host.add((life) => this.#start(life));
  }

  /** Names the parent, whom the child dials. */
  belongTo(parent: ParentAgent): void {
    this.#parent = parent;
  }

  get memory(): SimulatedMemory | undefined {
    return this.#guest?.memory;
  }

  get running(): boolean {
    return this.#guest?.running === true;
  }

  get everRan(): boolean {
    return this.#everRan;
  }

  get complete(): boolean {
    return this.#record?.complete === true;
  }

  /** True when no agent has anything left to do for it. */
  get over(): boolean {
    const { memory } = this;
    if (!this.#ready || this.host.life === undefined) return false;
    if (this.#record === undefined || this.#record.failed) return true;
    // A migration's child that nobody has let run yet is let run, or removed.
    return this.complete && memory?.quiet === true && (this.running || !this.#options.plan.migrate);
  }

  describe(): object {
    const { over, running, everRan, host } = this;
    const machine = this.#machine?.phase.phase;
    const waiting = this.memory?.waiters;
    return {
      host: host.name,
      record: this.#record,
      over,
      running,
      everRan,
      machine,
      waiting,
      progress: this.#machine?.progress(),
    };
  }

  /** `from` is the life of the parent's agent that asks, here as in all commands. */
  async prepare(there: Life, from: Life): Promise<void> {
    const { plan, scheduler } = this.#options;
    await this.#admit(there, from);
    await there.lag();
    if (scheduler.random.chance(plan.prepareFails))
      throw new SimulatedRefusal("failed", "the simulated host is full");
    if (!there.acts()) return;
    const memory = new SimulatedMemory(scheduler, plan.pages);
    if (plan.outOfMemoryAfter !== undefined && this.transfer === 1)
      memory.installsLeft = plan.outOfMemoryAfter;
    this.#guest = new SimulatedGuest({ memory, scheduler, onRun: () => this.#runs() });
    this.#record = { step: "prepared", incarnation: 0, complete: false, failed: false };
    this.#watch(there, from);
    this.#page(there, plan.precopy ? { precopied: true } : {});
    if (plan.precopy) this.#takeAhead(there, memory);
  }

  async start(
    there: Life,
    from: Life,
    { run, lacking }: { run: boolean; lacking?: Bitmap },
  ): Promise<ChildStarted> {
    const { plan, scheduler } = this.#options;
    const { record, guest } = await this.#find(there, from);
    if (record.step !== "prepared" || this.#loading) throw badState();
    this.#loading = true;
    this.#watch(there, from);
    if (lacking !== undefined) {
      this.#ahead?.commit(lacking);
      this.#machine?.begin();
    }
    await guest.command(there, () => {});
    if (scheduler.random.chance(plan.startFails))
      throw new SimulatedRefusal("failed", "the simulated child did not load");
    if (there.acts()) record.step = "loaded";
    return run ? this.run(there, from) : { loadUs: 1, runUs: 0 };
  }

  /** Lets a loaded child run; asking again is answered as the first time. */
  async run(there: Life, from: Life): Promise<ChildStarted> {
    const { record, guest } = await this.#find(there, from);
    if (record.step !== "loaded" || record.failed) throw badState();
    this.#watch(there, from);
    await guest.resume(there);
    if (record !== this.#record || record.failed) throw badState();
    this.#waits += 1;
    return { loadUs: 1, runUs: 1 };
  }

  /** From here on, passes on to another child. */
  async relayTo(there: Life, from: Life, transfer: number): Promise<void> {
    await this.#find(there, from);
    const branches = this.#branches;
    const branch = this.#machine?.relay.passTo(transfer, () => branches.delete(transfer));
    if (branch !== undefined) branches.set(transfer, branch);
  }

  /** From here on, another child passes on to this one. */
  async relayFrom(there: Life, from: Life, relay: ChildAgent): Promise<void> {
    await this.#find(there, from);
    this.#machine?.relay.feedFrom((epoch) =>
      this.#options.network.dial(there, relay.host, (_there, end) => relay.accept(this.transfer, epoch, end)),
    );
  }

  /** The lane that another child has dialled to be passed on to. */
  accept(transfer: number, epoch: number, end: FrameLane): void {
    const branch = this.#branches.get(transfer);
    if (!this.#ready || branch === undefined)
      throw new SimulatedRefusal("no-such-transfer", "nothing is passed on here", { fatal: this.#ready });
    try {
      branch.acceptLane(epoch, end, { lz4: transfer % 2 === 0 });
    } catch (cause) {
      throw new SimulatedRefusal("failed", "the lane was refused", { cause });
    }
  }

  async show(there: Life, from: Life): Promise<ChildView> {
    const { record, guest } = await this.#find(there, from);
    return { running: guest.running, complete: record.complete, failed: record.failed };
  }

  /** Resolves when the child is gone. */
  async cancel(there: Life, from: Life): Promise<void> {
    const { record, guest } = await this.#find(there, from);
    if (record.complete && guest.running) throw badState();
    this.#cancelMachine("the parent cancelled it");
    this.#remove(there);
  }

  #runs(): void {
    this.#everRan = true;
    this.#options.onRun(this);
  }

  #start(life: Life): void {
    this.#ready = false;
    this.#loading = false;
    this.#machine = undefined;
    this.#ahead = undefined;
    this.#branches = new Map();
    const broken = (error: unknown): void => this.#options.scheduler.fail(error);
    this.#recover(life).then(() => void (life.alive && (this.#ready = true)), broken);
  }

  /** What a new agent makes of what it finds. */
  async #recover(life: Life): Promise<void> {
    const record = this.#record;
    const guest = this.#guest;
    if (record === undefined || guest === undefined) return;
    await life.look();
    if (record.step === "prepared" || !guest.exists) return this.#remove(life);
    const running = await guest.isRunning(life);
    if (record.failed) return guest.pause();
    if (!running) this.#abandonLater(life);
    if (record.complete) {
      filledBy(life, guest.memory).release();
    } else if (life.acts()) {
      record.incarnation += 1;
      this.#page(life, { recovered: { epoch: record.incarnation * EPOCHS_PER_LIFE } });
    }
  }

  #page(life: Life, options: { recovered?: { epoch: number }; precopied?: boolean }): void {
    const { plan, network, scheduler } = this.#options;
    const guest = this.#guest as SimulatedGuest;
    const before = this.#highestEpoch;
    const memory = filledBy(life, guest.memory);
    const notes = notesOf(life, this.#notes);
    guest.memory.twofold = plan.threads;
    const thread = plan.threads
      ? new SimulatedThread(life, scheduler).child({
          transfer: this.transfer,
          memory,
          joined: joinedBy(life, guest.memory),
          notes: plan.verify ? notes : undefined,
        })
      : undefined;
    const machine = new ChildMachine({
      transfer: this.transfer,
      memory,
      ...(thread === undefined ? {} : { faults: thread.faults }),
      dial: async (lane, epoch) => {
        const parent = this.#parent as ParentAgent;
        if (epoch <= before) scheduler.fail(new Error(`epoch ${epoch} was used by an earlier life`));
        this.#highestEpoch = Math.max(this.#highestEpoch, epoch);
        const dialled = await network.dial(life, parent.host, (there, end) =>
          parent.accept(there, this, { lane, epoch, end }),
        );
        return lane === "urgent" && thread !== undefined ? thread.lane(dialled) : dialled;
      },
      clock: life.clock,
      log: silentLog,
      verify: plan.verify,
      notes,
      onEverything: () => this.#onEverything(life, machine),
      ...options,
    });
    this.#machine = machine;
    machine.start();
    const ended = life.hear(machine.ended).then((phase) => {
      this.reconnects += machine.progress().reconnects;
      this.relayed += machine.relay.progress().pages;
      if (phase.phase === "failed") this.#end(life, phase.error.message);
    });
    ended.catch((error: unknown) => this.#options.scheduler.fail(error));
  }

  /** Takes what the parent copies ahead. */
  #takeAhead(life: Life, memory: SimulatedMemory): void {
    const { plan, network } = this.#options;
    const machine = this.#machine;
    this.#ahead = new PrecopySink({
      transfer: this.transfer,
      memory: writtenBy(life, memory),
      dial: (epoch) => {
        const parent = this.#parent as ParentAgent;
        return network.dial(life, parent.host, (_there, end) => parent.acceptAhead(epoch, end));
      },
      clock: life.clock,
      log: silentLog,
      notes: notesOf(life, this.#notes),
      verify: plan.verify,
      onFailed: (error) => machine?.cancel(error),
    });
    this.#ahead.start();
  }

  #onEverything(life: Life, machine: ChildMachine): void {
    const mismatches = machine.verify?.mismatches ?? 0;
    if (life.alive && mismatches > 0)
      this.#options.scheduler.fail(new Error(`${mismatches} digests of child ${this.transfer} differ`));
    if (life.acts() && this.#record !== undefined) this.#record.complete = true;
  }

  /** The end of a child that is not complete. What a migrated guest did since it ran is nowhere else, so it is kept. */
  #end(life: Life, reason: string): void {
    const record = this.#record;
    if (record === undefined || record.failed || !life.alive) return;
    this.#cancelMachine(reason);
    if (!this.running || !this.#options.plan.migrate) return this.#remove(life);
    if (!life.acts()) return;
    record.failed = true;
    this.#guest?.pause();
  }

  #cancelMachine(reason: string): void {
    this.#waits += 1;
    this.#ahead?.close();
    this.#machine?.cancel(new TransferError("cancelled", reason));
  }

  #remove(life: Life): void {
    if (!life.acts()) return;
    this.#guest?.kill();
    if (life.acts()) this.#record = undefined;
  }

  async #admit(there: Life, from: Life): Promise<void> {
    // What an agent sent before it died comes too late once its successor was heard.
    if (from.number < this.#heardOf) await there.never();
    this.#heardOf = from.number;
    if (!this.#ready) throw new SimulatedRefusal("not-ready", "the agent has just been started");
  }

  async #find(there: Life, from: Life): Promise<{ record: ChildRecord; guest: SimulatedGuest }> {
    await this.#admit(there, from);
    const record = this.#record;
    const guest = this.#guest;
    if (record === undefined || guest === undefined)
      throw new SimulatedRefusal("no-such-transfer", "there is no such child here");
    return { record, guest };
  }

  /** Until it runs, a child belongs to who commands it: when that one is gone, so is the child, after a while. */
  #watch(there: Life, from: Life): void {
    const wait = (this.#waits += 1);
    from.onDeath(() => void (wait === this.#waits && this.#abandonLater(there)));
  }

  #abandonLater(life: Life): void {
    const wait = (this.#waits += 1);
    const abandon = async (): Promise<void> => {
      await sleep(life.clock, ABANDONED_MS);
      if (wait !== this.#waits || this.running) return;
      // A fork's child that is loaded lives, held; a migration's does not, because its parent may go on instead.
      if (this.#record?.step === "loaded" && !this.#options.plan.migrate) return;
      this.#end(life, "nobody told it to run");
    };
    abandon().catch((error: unknown) => this.#options.scheduler.fail(error));
  }
}

function badState(): SimulatedRefusal {
  return new SimulatedRefusal("bad-state", "the child is at another step");
}
