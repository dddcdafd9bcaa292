import { deferred, messageOf, type Log } from "../../base/index.js";
import type { GuestState, GuestView } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { GuestEvent } from "../../guest/index.js";
import type { EventHub } from "../events.js";
import type { Paths } from "../store/paths.js";
import { describeExit } from "./exit-words.js";
import { changedRecord, type GuestChange } from "./guest-change.js";
import { digestsOf, writeRecord, type GuestRecord } from "./guest-record.js";
import { viewOf, type Suspended } from "./guest-view.js";
import type { LiveEmulator } from "./live-emulator.js";

/** What a guest is busy with, so that a second command can be told. */
export interface Occupation {
  /** As in "is busy with …", such as `a fork to b (transfers 7, 8)`. */
  what: string;
  transfers: readonly number[];
}

/** Called when a guest's emulator ends; a transfer that still reads its memory delays the removal of that. */
export type ExitHandler = (why: string) => Promise<void> | void;

export interface GuestOptions {
  record: GuestRecord;
  paths: Paths;
  events: EventHub;
  log: Log;
  /** False for a guest whose record stands in for one that is not to be overwritten. */
  isKept?: boolean;
  /** Called with what happens to a guest that has disks. */
  onGuestEvent?: ((guest: Guest, event: GuestEvent) => void) | undefined;
}

/** States in which an emulator holds the guest, or its memory and disks wait for one. */
const LIVE_STATES: readonly GuestState[] = [
  "starting",
  "running",
  "paused",
  "frozen",
  "suspended",
  "receiving",
  "migrated",
  "unreadable",
];

/** One guest of this host: its record on disk, its emulator while it has one, and what it is busy with. */
export class Guest {
  #log: Log;
  readonly #agentLog: Log;
  readonly #paths: Paths;
  readonly #events: EventHub;
  readonly #exitHandlers = new Set<ExitHandler>();
  #off = deferred<void>();
  /** Settles when the end of the latest emulator has been seen to; never for one that was taken away. */
  #ended: Promise<void> = Promise.resolve();
  #record: GuestRecord;
  #live: LiveEmulator | undefined;
  /** Two emulators have it, so that the end of one need not be its own. */
  #isExchanging = false;
  readonly #heard = new WeakSet<LiveEmulator>();
  /** Why the agent itself ends the emulator it has. */
  #endReason: string | undefined;
  #occupation: Occupation | undefined;
  /** Of a child whose transfer is under way: whether that keeps it from running. */
  isHeld: (() => boolean) | undefined;
  /** What it has without an emulator; undefined unless it is suspended, and its memory is there. */
  suspended: Suspended | undefined;
  #saving: Promise<void> = Promise.resolve();
  #isSaved = true;
  #removed = false;
  readonly #isKept: boolean;
  readonly #onGuestEvent: GuestOptions["onGuestEvent"];

  constructor(options: GuestOptions) {
    this.#onGuestEvent = options.onGuestEvent;
    this.#record = options.record;
    this.#isKept = options.isKept ?? true;
    this.#paths = options.paths;
    this.#events = options.events;
    this.#agentLog = options.log;
    this.#log = this.#namedLog();
  }

  get log(): Log {
    return this.#log;
  }

  get id(): string {
    return this.#record.config.id;
  }

  get name(): string {
    return this.#record.config.name;
  }

  get state(): GuestState {
    return this.#record.state === "warm" ? "starting" : this.#record.state;
  }

  get record(): Readonly<GuestRecord> {
    return this.#record;
  }

  get config(): GuestRecord["config"] {
    return this.#record.config;
  }

  /** Whether an emulator has, or should have, this guest, or can have it again. */
  get isLive(): boolean {
    return LIVE_STATES.includes(this.state);
  }

  /** Its emulator. @throws AgentError `bad-state` when it has none. */
  get live(): LiveEmulator {
    if (this.#live !== undefined) return this.#live;
    throw new AgentError("bad-state", `guest ${this.name} is ${this.state} and has no emulator`);
  }

  get hasEmulator(): boolean {
    return this.#live !== undefined;
  }

  get digests(): string[] {
    return digestsOf(this.#record);
  }

  get occupation(): Occupation | undefined {
    return this.#occupation;
  }

  /**
   * Keeps every other command that would change the guest away until the returned function is called.
   * @throws AgentError `busy` when another one does so.
   */
  occupy(occupation: Occupation): () => void {
    this.requireIdle();
    this.#occupation = occupation;
    this.#changed();
    return () => {
      if (this.#occupation !== occupation) return;
      this.#occupation = undefined;
      this.#changed();
    };
  }

  /**
   * As `occupy`, for a transfer that reads the guest's memory: should the emulator end before, that stays readable until the returned function is called.
   * @throws AgentError `busy`.
   */
  occupyMemory(occupation: Occupation): () => void {
    const leave = this.occupy(occupation);
    const over = deferred<void>();
    const stopWaiting = this.onExit(() => over.promise);
    return () => {
      stopWaiting();
      over.resolve();
      leave();
    };
  }

  /** @throws AgentError `busy`, saying with what and how to end it. */
  requireIdle(): void {
    const occupation = this.#occupation;
    if (occupation === undefined) return;
    const cure =
      occupation.transfers.length === 0
        ? "try again when that is over"
        : "see it with `ramet transfers`, wait until it is over, or cancel it";
    throw new AgentError("busy", `guest ${this.name} is busy with ${occupation.what}: ${cure}`);
  }

  /** @throws AgentError `bad-state` unless the guest is in one of these states. */
  requireState(doing: string, ...states: GuestState[]): void {
    if (states.includes(this.state)) return;
    const why = this.#record.message === undefined ? "" : ` (${this.#record.message})`;
    const cure =
      this.state === "suspended"
        ? `: \`ramet resume ${this.name}\` lets it run on, with --emulator in another emulator`
        : "";
    throw new AgentError(
      "bad-state",
      `guest ${this.name} is ${this.state}${why}; it must be ${states.join(" or ")} to be ${doing}${cure}`,
    );
  }

  /** Gives the guest its emulator; from now on its end is the guest's. */
  attach(live: LiveEmulator): void {
    this.#off = deferred();
    this.#follow(live);
  }

  /** The end of its emulator is nobody's affair until `endExchange`: another one may take over. */
  beginExchange(): void {
    this.#isExchanging = true;
  }

  /** From here on this emulator is its own, whose end is the guest's, also if it has ended meanwhile. */
  endExchange(live: LiveEmulator): void {
    this.#isExchanging = false;
    // Its removal or the agent's end took it away.
    if (this.#live !== undefined) this.#follow(live);
  }

  #follow(live: LiveEmulator): void {
    this.#live = live;
    this.#endReason = undefined;
    if (this.config.disks.length > 0 && !this.#heard.has(live)) {
      this.#heard.add(live);
      live.emulator.onGuestEvent((event) => this.#live === live && this.#onGuestEvent?.(this, event));
    }
    this.#ended = live.exited
      .then(() => this.#onExit(live))
      .catch((error: unknown) => {
        this.log.error({ problem: messageOf(error) }, "the end of an emulator could not be handled in full");
      });
  }

  /** Resolves when all that an emulator which has ended had is free. Does not wait for one that runs. */
  async whenFree(): Promise<void> {
    if (this.#live === undefined) await this.#ended;
  }

  /** Takes the emulator away, without ending it: its end is no longer this guest's. */
  detachEmulator(): LiveEmulator | undefined {
    const live = this.#live;
    this.#live = undefined;
    this.#off.resolve();
    // Its end is somebody else's now.
    if (live !== undefined) this.#ended = Promise.resolve();
    return live;
  }

  /** Resolves when the guest has no emulator any more, its record says so, and what it had is free, unless a transfer still reads it. */
  async whenOff(): Promise<void> {
    if (this.#live !== undefined) await this.#off.promise;
  }

  /** Ends an emulator that must not run on; when it is this guest's, that has crashed for this reason. Resolves when what it had is free. */
  async endBecause(live: LiveEmulator, reason: string): Promise<void> {
    if (this.#live !== live) return live.end();
    this.#endReason = reason;
    await live.emulator.kill();
    await this.whenOff();
  }

  /** Calls `handler` when the emulator ends by itself. Returns what takes that back. */
  onExit(handler: ExitHandler): () => void {
    this.#exitHandlers.add(handler);
    return () => this.#exitHandlers.delete(handler);
  }

  /** Changes what is known of the guest: at once in memory and for listeners, on disk when the promise resolves. */
  update(change: GuestChange): Promise<void> {
    this.#record = changedRecord(this.#record, change);
    if (change.role !== undefined) this.#log = this.#namedLog();
    this.#changed();
    return this.save();
  }

  /** As `update`, for moments in which nobody can wait for a disk. */
  note(change: GuestChange): void {
    this.update(change).catch((error: unknown) => {
      this.log.error({ problem: messageOf(error) }, "a guest's record could not be written");
    });
  }

  /** Writes the record; writes follow each other. */
  save(): Promise<void> {
    const next = this.#saving
      .catch(() => {})
      .then(async () => {
        if (!this.#removed && this.#isKept) await writeRecord(this.#paths.record(this.id), this.#record);
      });
    this.#saving = next;
    this.#isSaved = false;
    next.then(
      () => (this.#isSaved = this.#saving === next),
      () => {},
    );
    return next;
  }

  /** Whether what is known now is on disk. */
  get isSaved(): boolean {
    return this.#isSaved;
  }

  /** Resolves when what is known now is on disk. */
  saved(): Promise<void> {
    return this.#saving;
  }

  /**
   * Writes that it is to be removed, before anything of it is: what this agent does not come to, the next one removes. A disk that is full keeps
   * nobody from removing a guest, so nothing is thrown.
   */
  async condemn(): Promise<void> {
    this.#record = { ...this.#record, removing: true };
    try {
      await this.save();
    } catch (error) {
      this.log.warn({ problem: messageOf(error) }, "it could not be noted that a guest is being removed");
    }
  }

  /** No more writes: the directory is about to be removed. */
  async retire(): Promise<void> {
    this.#removed = true;
    await this.#saving.catch(() => {});
  }

  view(): GuestView {
    const { state, suspended, occupation } = this;
    return viewOf(this.#record, {
      state,
      live: this.#live,
      suspended,
      transfers: occupation?.transfers ?? [],
    });
  }

  #namedLog(): Log {
    return this.#agentLog.child({ guest: this.name, id: this.id });
  }

  #changed(): void {
    if (!this.#removed) this.#events.emit("guest", { change: "changed", guest: this.view() });
  }

  async #onExit(live: LiveEmulator): Promise<void> {
    if (this.#live !== live || this.#isExchanging) return;
    this.#live = undefined;
    const exit = await live.exited;
    const why = this.#endReason ?? describeExit(exit);
    this.log.info({ exit }, "the emulator has ended");
    const handlers = [...this.#exitHandlers];
    try {
      const isExpected = exit.expected && this.#endReason === undefined;
      await this.update({ state: isExpected ? "stopped" : "crashed", message: why.slice(0, 500) });
      // Whoever still reads its memory takes the time that needs; nobody else waits for that.
      if (handlers.length > 0) this.#off.resolve();
      await Promise.all(handlers.map(async (handler) => handler(why)));
    } finally {
      await live.release();
      this.#off.resolve();
    }
  }
}
