import { Bitmap, PAGE_BYTES, SeededRandom, silentLog } from "../../../src/base/index.js";
import { Instant, SharedMemory, type InstantReader } from "../../../src/transfer/index.js";
import { SimulatedGuest } from "./guest.js";
import { SimulatedHost, type Life } from "./host.js";
import { SimulatedCopies } from "./kept.js";
import { contentOf, SimulatedMemory } from "./memory.js";
import { copiesOf, trackedBy } from "./mortal.js";
import { Scheduler } from "./scheduler.js";
import { SimulatedSharer } from "./sharing-child.js";

const MAX_EVENTS = 400_000;
const CRASH_AMONG_ACTS = [20, 100, 300];

/** A child elsewhere, which is sent what the parent's memory was at the instant; what it owes outlives agents, as records do. */
interface Receiver {
  owed: Bitmap;
  oracle: readonly Uint8Array[];
  /** A new agent knows of it. */
  told: boolean;
}

/**
 * A parent that writes, and children on its host that share its memory, of several instants, some of them together with a child elsewhere. The parent is
 * frozen and thawed, children end or cannot be given their pages, and the agent crashes at any act.
 */
export class SharingWorld {
  readonly scheduler: Scheduler;
  readonly host: SimulatedHost;
  readonly #random: SeededRandom;
  readonly #memory: SimulatedMemory;
  readonly #guest: SimulatedGuest;
  readonly #copies = new SimulatedCopies();
  readonly #children: SimulatedSharer[] = [];
  readonly #writers: number;
  readonly #restUs: number;
  readonly #budgetPages: number;
  readonly #scarce: boolean;
  #receiver: Receiver | undefined;
  #isFrozen = false;
  #operations: number;
  #version = 1;
  #begun = false;
  #busy = true;
  readonly counts = { forks: 0, separated: 0, starved: 0, frozen: 0 };

  constructor(seed: number, options: { small: boolean } = { small: false }) {
    const random = (this.#random = new SeededRandom(seed));
    this.scheduler = new Scheduler(random);
    this.#operations = 1 + random.below(options.small ? 2 : 6);
    this.#writers = 1 + random.below(3);
    this.#restUs = random.pick([50, 400]);
    this.#budgetPages = random.pick([2, 100]);
    this.#scarce = random.chance(0.2);
    const pages = 1 + random.below(options.small ? 6 : 70);
    this.#memory = new SimulatedMemory(this.scheduler, pages);
    const holes = random.pick([0, 0.3, 0.9]);
    for (let page = 0; page < pages; page += 1)
      if (!random.chance(holes)) this.#memory.place(page, this.#newContent(page));
    this.#guest = new SimulatedGuest({
      memory: this.#memory,
      scheduler: this.scheduler,
      onRun: () => {
        for (let writer = 0; writer < this.#writers; writer += 1) this.#parentWrites();
      },
    });
    this.host = new SimulatedHost("the host", this.scheduler);
    this.host.add((life) => this.#start(life));
    if (options.small || random.chance(0.4)) return;
    for (let index = 0; index < 1 + random.below(4); index += 1)
      this.host.crashAtAct(1 + random.below(random.pick(CRASH_AMONG_ACTS)), random.below(3));
  }

  /** Plays the run and checks after every event that no child sees what it must not. */
  async play(): Promise<void> {
    this.#guest.boot();
    this.host.start();
    this.scheduler.checkInvariants = () => this.#children.forEach((child) => child.check());
    await this.scheduler.runUntil(() => this.#isOver(), MAX_EVENTS);
    if (!this.#guest.running) throw new Error("the parent does not run");
    if (!this.#memory.quiet) throw new Error("the parent's memory is left protected");
    if ([...this.#copies.pages()].length > 0) throw new Error("copies are left");
  }

  describe(): object {
    const { life, acts, crashes } = this.host;
    const stages = this.#children.map(({ stage }) => stage);
    const { waiters, quiet } = this.#memory;
    return {
      alive: life !== undefined,
      acts,
      crashes,
      stages,
      waiters,
      quiet,
      isFrozen: this.#isFrozen,
      ...this.counts,
    };
  }

  #isOver(): boolean {
    if (this.host.life === undefined || this.#busy || this.#memory.waiters > 0) return false;
    return this.#memory.quiet && this.#children.every(({ stage }) => stage === "ended");
  }

  #start(life: Life): void {
    const first = !this.#begun;
    this.#begun = true;
    this.#busy = true;
    const shared = new SharedMemory({
      memory: trackedBy(life, this.#memory),
      clock: life.clock,
      log: silentLog,
    });
    const work = async (): Promise<void> => {
      if (!first) await this.#recover(life, shared);
      for (; this.#operations > 0; this.#operations -= 1) await this.#operate(life, shared);
      if (this.#isFrozen) await this.#thaw(life, shared);
      for (const child of this.#children) child.kill();
      this.#busy = false;
      this.counts.separated += shared.counters.separated;
    };
    work().catch((error: unknown) => this.scheduler.fail(error));
  }

  /** In the order in which an agent does it: children that never ran go, the others are known before anybody is served. */
  async #recover(life: Life, shared: SharedMemory): Promise<void> {
    await life.look();
    for (const child of this.#children.filter(({ stage }) => stage === "mapped" || stage === "joined")) {
      child.kill();
      while (child.stage !== "ended") await life.lag();
    }
    if (this.#isFrozen) shared.freeze();
    for (const child of this.#children.filter(({ stage }) => stage === "running"))
      this.#leaveAtEnd(
        life,
        child,
        shared.rejoin(this.#mapping(life, child), () => this.#starve(life, child)),
      );
    const receiver = this.#receiver;
    if (receiver?.told === true) {
      const instant = Instant.recover(this.#instantOptions(life, shared));
      const reading = this.#serve(life, instant, receiver);
      shared.goOn();
      if (!this.#isFrozen) await this.#guest.resume(life);
      await reading;
    } else {
      if (life.acts()) this.#receiver = undefined;
      if (life.acts()) this.#copies.clear();
      shared.goOn();
      if (!this.#isFrozen) await this.#guest.resume(life);
    }
  }

  async #operate(life: Life, shared: SharedMemory): Promise<void> {
    await life.lag(this.#random.pick([400, 5000]));
    if (this.#random.chance(0.3)) this.#random.pick([...this.#children, undefined])?.kill();
    if (this.#isFrozen && this.#random.chance(0.5)) return this.#thaw(life, shared);
    if (this.#isFrozen) return this.#forkFrozen(life, shared);
    if (this.#random.chance(0.2)) return this.#freeze(life, shared);
    return this.#fork(life, shared);
  }

  async #fork(life: Life, shared: SharedMemory): Promise<void> {
    const born = this.#newChildren();
    const instant = new Instant(this.#instantOptions(life, shared));
    const receiver = this.#random.chance(0.4) ? this.#newReceiver(life) : undefined;
    const reader = receiver === undefined ? undefined : readerOf(receiver);
    if (reader !== undefined) instant.addReader(reader);
    await instant.arm();
    await instant.converge();
    if (this.#random.chance(0.1)) return this.#giveUp(instant, born);
    await this.#guest.stop(life);
    instant.rearm();
    await life.lag();
    instant.freeze();
    if (!life.alive) return;
    const oracle = this.#snapshot();
    for (const child of born) this.#join(life, shared, { child, oracle });
    if (receiver !== undefined) receiver.oracle = oracle;
    await this.#guest.resume(life);
    this.counts.forks += 1;
    if (receiver === undefined || reader === undefined) {
      instant.release();
      return this.#letRun(life, born);
    }
    if (life.acts()) receiver.told = true;
    const reading = this.#read(life, { instant, receiver, reader });
    await this.#letRun(life, born);
    await reading;
  }

  #giveUp(instant: Instant, born: readonly SimulatedSharer[]): void {
    instant.release();
    for (const child of born) child.kill();
    this.#receiver = undefined;
  }

  async #forkFrozen(life: Life, shared: SharedMemory): Promise<void> {
    const born = this.#newChildren();
    const oracle = this.#snapshot();
    for (const child of born) if (life.alive) this.#join(life, shared, { child, oracle });
    this.counts.forks += 1;
    await this.#letRun(life, born);
  }

  async #freeze(life: Life, shared: SharedMemory): Promise<void> {
    await this.#guest.stop(life);
    if (!life.acts()) return;
    this.#isFrozen = true;
    shared.freeze();
    this.counts.frozen += 1;
  }

  async #thaw(life: Life, shared: SharedMemory): Promise<void> {
    // Another agent may have frozen it since this one died.
    if (!life.alive) return;
    await shared.thaw();
    if (!life.acts()) return;
    this.#isFrozen = false;
    await this.#guest.resume(life);
  }

  #join(
    life: Life,
    shared: SharedMemory,
    born: { child: SimulatedSharer; oracle: readonly Uint8Array[] },
  ): void {
    const { child, oracle } = born;
    if (child.stage !== "mapped") return;
    child.oracle = oracle;
    child.stage = "joined";
    this.#leaveAtEnd(
      life,
      child,
      shared.join(this.#mapping(life, child), () => this.#starve(life, child)),
    );
  }

  async #letRun(life: Life, born: readonly SimulatedSharer[]): Promise<void> {
    for (const child of born) {
      await life.lag();
      if (child.stage !== "joined" || !life.acts()) continue;
      child.stage = "running";
      this.#childTouches(child);
      if (this.#random.chance(0.3)) this.scheduler.afterUs(this.#random.below(20_000), () => child.kill());
    }
  }

  #mapping(life: Life, child: SimulatedSharer) {
    return { separate: (range: { first: number; count: number }) => life.acts() && child.separate(range) };
  }

  /** A child that cannot be given its pages is ended. */
  #starve(life: Life, child: SimulatedSharer): void {
    if (!life.alive) return;
    this.counts.starved += 1;
    child.kill();
  }

  #leaveAtEnd(life: Life, child: SimulatedSharer, sharing: { leave(): void }): void {
    child.onEnd(() => void (life.alive && sharing.leave()));
  }

  #serve(life: Life, instant: Instant, receiver: Receiver): Promise<void> {
    const reader = readerOf(receiver);
    instant.addReader(reader);
    const lost = instant.firstLost(receiver.owed);
    if (lost !== undefined) throw new Error(`page ${lost} is owed and lost`);
    return this.#read(life, { instant, receiver, reader });
  }

  /** Takes page after page, as a child elsewhere does, and compares each with what was there at the instant. */
  async #read(
    life: Life,
    parts: { instant: Instant; receiver: Receiver; reader: InstantReader },
  ): Promise<void> {
    const { instant, receiver, reader } = parts;
    const bytes = new Uint8Array(PAGE_BYTES);
    for (let page = receiver.owed.nextSet(0); page !== -1; page = receiver.owed.nextSet(0)) {
      await life.lag();
      instant.read({ first: page, count: 1 }, bytes);
      if (Buffer.compare(bytes, receiver.oracle[page] as Uint8Array) !== 0)
        throw new Error(`page ${page} is sent as it was not at the instant`);
      if (!life.acts()) return;
      receiver.owed.clear(page);
      instant.settle([{ first: page, count: 1 }]);
    }
    if (life.acts()) this.#receiver = undefined;
    instant.removeReader(reader);
  }

  #newReceiver(life: Life): Receiver | undefined {
    if (!life.acts()) return undefined;
    const owed = new Bitmap(this.#memory.pageCount);
    owed.fill();
    this.#receiver = { owed, oracle: [], told: false };
    return this.#receiver;
  }

  #newChildren(): SimulatedSharer[] {
    const born = Array.from(
      { length: this.#random.below(4) },
      () =>
        new SimulatedSharer({
          parent: this.#memory,
          scheduler: this.scheduler,
          room: this.#scarce ? this.#random.below(30) : Infinity,
        }),
    );
    this.#children.push(...born);
    return born;
  }

  #instantOptions(life: Life, memory: SharedMemory) {
    return {
      memory,
      copies: copiesOf(life, this.#copies),
      copyBudgetBytes: this.#budgetPages * PAGE_BYTES,
      tracking: true,
      clock: life.clock,
      log: silentLog,
    };
  }

  #snapshot(): Uint8Array[] {
    return Array.from({ length: this.#memory.pageCount }, (_, page) => this.#memory.content(page).slice());
  }

  #newContent(page: number): Uint8Array {
    this.#version += 1;
    return contentOf(page, this.#random.chance(0.1) ? 0 : this.#version);
  }

  #parentWrites(): void {
    const guest = this.#guest;
    if (!guest.running || this.#isOver()) return;
    const page = this.#random.below(this.#memory.pageCount);
    guest.writing += 1;
    this.#memory.touch(page, this.#newContent(page), () => {
      guest.writing -= 1;
      this.scheduler.afterUs(this.#random.below(this.#restUs), () => this.#parentWrites());
    });
  }

  #childTouches(child: SimulatedSharer): void {
    if (child.stage !== "running") return;
    const page = this.#random.below(this.#memory.pageCount);
    if (this.#random.chance(0.5)) child.write(page, this.#newContent(page));
    this.scheduler.afterUs(this.#random.below(1000), () => this.#childTouches(child));
  }
}

/** What an instant knows of a child elsewhere. */
function readerOf({ owed }: Receiver): InstantReader {
  return {
    owes: (page) => owed.has(page),
    onCopied: () => {},
    get owedCount() {
      return owed.count;
    },
    giveUp: () => {},
  };
}
