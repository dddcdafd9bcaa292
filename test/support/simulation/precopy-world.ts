import { SeededRandom, silentLog } from "../../../src/base/index.js";
import {
  ChildMachine,
  Instant,
  migrateGuest,
  ParentSession,
  PrecopySink,
  PrecopySource,
  TransferError,
  type ChildTarget,
  type FrameLane,
  type ParentEmulator,
} from "../../../src/transfer/index.js";
import { SimulatedCopies, SimulatedNotes } from "./kept.js";
import { simulatedLane } from "./lane.js";
import { contentOf, SimulatedMemory } from "./memory.js";
import { Scheduler } from "./scheduler.js";

const log = silentLog;
const MAX_EVENTS = 1_000_000;
const TRANSFER = 1;

/** One migration that copies ahead while the parent writes, under a seed that decides everything. */
export class PrecopyWorld {
  readonly #random: SeededRandom;
  readonly #scheduler: Scheduler;
  readonly #pages: number;
  readonly #verify: boolean;
  readonly #parent: SimulatedMemory;
  readonly #child: SimulatedMemory;
  readonly #instant: Instant;
  readonly #source: PrecopySource;
  readonly #sink: PrecopySink;
  readonly #session: ParentSession;
  readonly #machine: ChildMachine;
  readonly #abort = new AbortController();
  readonly #lanes: ReturnType<typeof simulatedLane>[] = [];
  readonly #own = new Map<number, Uint8Array>();
  readonly #breaks: number;
  readonly #bytesPerUs: number;
  #running = true;
  #writing = 0;
  #version = 1;
  #childRuns = false;
  #oracle: Uint8Array[] | undefined;
  #failure: TransferError | undefined;

  constructor(seed: number) {
    const random = (this.#random = new SeededRandom(seed));
    const clock = (this.#scheduler = new Scheduler(random));
    this.#pages = 1 + random.below(300);
    this.#verify = random.chance(0.5);
    this.#breaks = random.chance(0.5) ? random.below(12) : 0;
    this.#bytesPerUs = random.pick([2000, 100, 10]);
    const holes = random.pick([0, 0.3, 0.95]);
    const maxWindowBytes = random.pick([4096, 64 * 1024, 4 * 1024 * 1024]);
    this.#parent = new SimulatedMemory(clock, this.#pages);
    this.#child = new SimulatedMemory(clock, this.#pages);
    if (random.chance(0.05)) this.#child.installsLeft = random.below(this.#pages);
    for (let page = 0; page < this.#pages; page += 1) {
      if (!random.chance(holes)) this.#parent.place(page, this.#newContent(page));
    }
    const common = { transfer: TRANSFER, clock, log, compress: random.chance(0.5) };
    this.#instant = new Instant({
      memory: this.#parent,
      copies: new SimulatedCopies(),
      copyBudgetBytes: 4096,
      tracking: false,
      clock,
      log,
    });
    this.#source = new PrecopySource({ ...common, memory: this.#parent, maxWindowBytes });
    this.#session = new ParentSession({
      ...common,
      instant: this.#instant,
      sweep: true,
      maxWindowBytes,
      // A child that failed while no lane was there does not dial again.
      linkDeadlineMs: 60_000,
    });
    const notes = new SimulatedNotes(this.#pages);
    this.#sink = new PrecopySink({
      ...common,
      memory: this.#child,
      notes,
      verify: this.#verify,
      dial: (epoch) => this.#dial((lane) => this.#source.acceptLane(epoch, lane)),
      onFailed: (error) => this.#machine.cancel(error),
    });
    this.#machine = new ChildMachine({
      ...common,
      memory: this.#child,
      notes,
      verify: this.#verify,
      precopied: true,
      dial: (name, epoch) => this.#dial((lane) => this.#session.acceptLane(name, epoch, lane)),
    });
    if (random.chance(0.1)) clock.afterUs(random.below(20_000), () => this.#abort.abort());
  }

  /** Plays it to its end and checks that the child has the parent's memory of the switch, or that the parent runs on. */
  async play(): Promise<string> {
    for (let writer = 0; writer < 3; writer += 1) this.#parentWrites();
    for (let index = 0; index < this.#breaks; index += 1) {
      this.#scheduler.afterUs(this.#random.below(10_000), () => {
        const open = this.#lanes.filter((lane) => lane.isOpen());
        if (open.length > 0) this.#random.pick(open).break();
      });
    }
    let ended = false;
    const migration = this.#migrate().finally(() => (ended = true));
    migration.catch(() => {});
    await this.#scheduler.runUntil(() => ended, MAX_EVENTS);
    await migration;
    if (this.#failure !== undefined) {
      if (!this.#running || this.#childRuns)
        throw new Error("a failed migration left the wrong guest running");
      if (!this.#parent.quiet) await this.#scheduler.runUntil(() => this.#parent.quiet, MAX_EVENTS);
      return this.#failure.code;
    }
    await this.#scheduler.runUntil(() => this.#isOver(), MAX_EVENTS);
    // A host that has no room for a page loses the child; nobody has been given a wrong one.
    if (this.#child.installsLeft < 0) return "child out of memory";
    this.#checkEnd();
    return this.#breaks > 0 ? "complete with lost lanes" : "complete";
  }

  async #migrate(): Promise<void> {
    try {
      await migrateGuest({
        emulator: this.#emulator(),
        memory: this.#parent,
        instant: this.#instant,
        child: { target: this.#target(), session: this.#session },
        precopy: this.#source,
        network: { detach: () => this.#lag(), attach: () => this.#lag() },
        verify: this.#verify,
        clock: this.#scheduler,
        log,
        onStep: () => {},
        signal: this.#abort.signal,
      });
    } catch (thrown) {
      // Nobody lies here: who is accused of it has been told something wrong.
      if (!(thrown instanceof TransferError) || thrown.code === "peer-protocol") throw thrown;
      this.#failure = thrown;
    }
  }

  #emulator(): ParentEmulator {
    return {
      snapshot: () => Promise.reject(new Error("a guest that is migrated does not run on")),
      prepareDeviceState: () => this.#lag().then(() => new Uint8Array(4)),
      stop: async () => {
        await this.#lag();
        this.#running = false;
        while (this.#writing > 0) await this.#lag();
        return { stoppedAtUs: this.#scheduler.nowUs() };
      },
      saveDeviceState: async () => {
        await this.#lag();
        // Saving may write guest memory, as long as it is not done.
        for (let write = this.#random.below(3); write > 0; write -= 1) await this.#write();
        this.#oracle = Array.from({ length: this.#pages }, (_, page) =>
          Uint8Array.from(this.#parent.content(page)),
        );
        return { compose: () => new Uint8Array(8) };
      },
      resume: async () => {
        await this.#lag();
        this.#running = true;
        this.#parentWrites();
        return { resumedAtUs: this.#scheduler.nowUs() };
      },
    };
  }

  #target(): ChildTarget {
    return {
      transfer: TRANSFER,
      host: "host-b",
      prepare: async () => {
        await this.#lag();
        this.#sink.start();
        this.#machine.start();
        void this.#machine.ended.then((phase) => {
          if (phase.phase === "failed")
            this.#source.fail(new TransferError("child-failed", phase.error.message));
        });
      },
      sendAhead: () => this.#lag(),
      start: async (_state, { lacking }) => {
        await this.#lag();
        if (this.#machine.phase.phase === "failed") throw new TransferError("child-failed", "it has failed");
        if (lacking === undefined) throw new Error("after a pre-copy the child is told what it lacks");
        this.#sink.commit(lacking);
        this.#machine.begin();
        return { loadUs: 1, runUs: 0 };
      },
      run: async () => {
        await this.#lag();
        this.#childRuns = true;
        for (let toucher = 0; toucher < 2; toucher += 1) this.#childTouches();
        return { loadUs: 1, runUs: 1 };
      },
      cancel: async (reason) => {
        await this.#lag();
        this.#sink.close();
        this.#machine.cancel(new TransferError("cancelled", reason));
      },
    };
  }

  #parentWrites(): void {
    if (!this.#running || this.#isOver()) return;
    const rest = this.#random.below(this.#random.chance(0.02) ? 20_000 : 300);
    void this.#write().then(() => this.#scheduler.afterUs(rest, () => this.#parentWrites()));
  }

  #write(): Promise<void> {
    const page = this.#random.below(this.#pages);
    this.#writing += 1;
    return new Promise((resolve) =>
      this.#parent.touch(page, this.#newContent(page), () => {
        this.#writing -= 1;
        resolve();
      }),
    );
  }

  #childTouches(): void {
    const page = this.#random.below(this.#pages);
    const mine = this.#random.chance(0.4) ? this.#newContent(page) : undefined;
    this.#child.touch(page, mine, () => {
      if (mine !== undefined) this.#own.set(page, mine);
      else this.#checkPage(page);
      if (!this.#isOver()) this.#scheduler.afterUs(this.#random.below(200), () => this.#childTouches());
    });
  }

  #newContent(page: number): Uint8Array {
    return contentOf(page, this.#random.chance(0.1) ? 0 : (this.#version += 1));
  }

  #checkPage(page: number): void {
    const expected = this.#own.get(page) ?? this.#oracle?.[page];
    if (expected === undefined || Buffer.compare(this.#child.content(page), expected) !== 0)
      throw new Error(`page ${page} of the child is not what it was at the switch`);
  }

  #isOver(): boolean {
    const ends = [this.#machine.phase.phase, this.#session.phase.phase];
    return ends.every((phase) => phase === "complete" || phase === "failed");
  }

  #checkEnd(): void {
    if (this.#machine.phase.phase !== "complete")
      throw new Error("a child that was switched to did not complete");
    if (!this.#child.quiet || !this.#parent.quiet) throw new Error("memory is left registered");
    for (let page = 0; page < this.#pages; page += 1) this.#checkPage(page);
    if (this.#verify && this.#machine.verify?.mismatches !== 0) throw new Error("the digests differ");
  }

  async #dial(accept: (lane: FrameLane) => void): Promise<FrameLane> {
    await this.#lag();
    if (this.#breaks > 0 && this.#random.chance(0.2)) throw new Error("the simulated dial failed");
    const lane = simulatedLane(this.#scheduler, this.#bytesPerUs);
    this.#lanes.push(lane);
    accept(lane.parent);
    await this.#lag();
    return lane.child;
  }

  #lag(): Promise<void> {
    return new Promise((resolve) => this.#scheduler.afterUs(this.#random.below(400), resolve));
  }
}
