import { existsSync } from "node:fs";
import { readdir, rm, mkdir } from "node:fs/promises";
import { messageOf, sleep, withDeadline, type Clock, type Log } from "../../base/index.js";
import { layersOf, type GuestDisks } from "../disks/guest-disks.js";
import { readExchange, seatsOf, type ExchangeRecord } from "../exchange/exchange-record.js";
import { settleExchange } from "../exchange/settle-exchange.js";
import type { EventHub } from "../events.js";
import { releaseSuspended, settleSuspension, takeUpSuspended } from "../suspend/found-suspension.js";
import type { SuspensionRecord } from "../suspend/suspension-record.js";
import type { BootStore } from "../store/boot-store.js";
import type { FormerChildren } from "../store/former-children.js";
import { removeGuestMemory, removeStrayMemory } from "../store/guest-memory.js";
import type { Paths } from "../store/paths.js";
import { readTransferRecords, removeStray, type LeftTransfers } from "../transfers/transfer-record.js";
import type { Admission } from "./admission.js";
import { digestsOf, readRecord, type GuestRecord } from "./guest-record.js";
import { Guest, type GuestOptions } from "./guest.js";
import type { EmulatorSource } from "./launcher.js";
import type { LiveEmulator } from "./live-emulator.js";
import { INTERRUPTED, liveState, SILENT, silent } from "./found-state.js";
import { noSuchGuest, requireRoomAmong } from "./names.js";
import { isOver, rememberRun, remainsOf } from "./remains.js";
import { unreadableRecord } from "./unreadable.js";

const UUID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export interface RegistryOptions {
  paths: Paths;
  source: EmulatorSource;
  boot: BootStore;
  disks: GuestDisks;
  formerChildren: FormerChildren;
  admission: Admission;
  events: EventHub;
  maxGuests: number;
  /** Called with what happens to guests that have disks. */
  onGuestEvent?: GuestOptions["onGuestEvent"];
  clock: Clock;
  log: Log;
}

/** How long an agent's start waits for emulators to answer, and how often one that does not is tried again. */
const ANSWER_DEADLINE_MS = 2000;
const ANSWER_RETRY_MS = 1000;

/** A guest with transfers that an earlier agent did not bring to their end. Its memory is as that agent left it. */
export interface UnfinishedGuest extends LeftTransfers {
  guest: Guest;
}

/** The guests of this host, by name and by id; on disk, so that a new agent finds them again. */
export class GuestRegistry {
  readonly #options: RegistryOptions;
  readonly #guests = new Map<string, Guest>();
  /** Digests that emulators outside the registry were started with. */
  readonly digestsElsewhere: (() => Iterable<string>)[] = [];

  readonly #unfinished: UnfinishedGuest[] = [];
  /** What is to be done with each guest that was found, once its emulator answers, before its state is looked at. */
  readonly #toSettle = new Map<Guest, (() => Promise<void>)[]>();
  #isWhole = true;

  private constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /**
   * Reads every guest's record and finds the emulators that still run, without a word to them: whoever waits for a page must be served first. Guests with
   * unfinished transfers are left to `unfinished`; `settle` completes it.
   */
  static async open(options: RegistryOptions): Promise<GuestRegistry> {
    const registry = new GuestRegistry(options);
    await mkdir(options.paths.guests, { recursive: true, mode: 0o700 });
    for (const id of await readdir(options.paths.guests)) {
      if (!UUID_PATTERN.test(id)) continue;
      try {
        await registry.#load(id);
      } catch (error) {
        // One damaged record must not keep an agent from its other guests. Nothing of it is touched.
        options.log.error({ id, problem: messageOf(error) }, "a guest could not be taken over");
        await registry.#settleUnreadable(id, error);
      }
    }
    await removeStrayMemory(options.paths, UUID_PATTERN);
    await registry.collectBootFiles();
    await options.disks.removeStray((id) => registry.#guests.has(id), layersOf(registry.list()));
    return registry;
  }

  /** Guests whose transfers are to be gone on with, on the agent's start. */
  get unfinished(): readonly UnfinishedGuest[] {
    return this.#unfinished;
  }

  /** False when there may be guests here that this agent could not take over: nobody may be told that something is not here. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Has something done with a guest that was found as soon as its emulator answers. */
  whenAnswering(guest: Guest, act: () => Promise<void>): void {
    this.#toSettle.get(guest)?.push(act);
  }

  /** A guest that was found, and whose transfers cannot be gone on with. */
  withhold(guest: Guest, error: unknown): void {
    this.#isWhole = false;
    guest.log.error(
      { problem: messageOf(error) },
      "the transfers of an earlier agent could not be gone on with",
    );
    guest.note({ message: `its transfers could not be gone on with: ${messageOf(error)}`.slice(0, 500) });
  }

  /** Speaks to the emulators that were found. Resolves when that is done, or has not been for a while; it goes on then. */
  async settle(): Promise<void> {
    const settling = [...this.#toSettle].map(([guest, acts]) => this.#settleLive(guest, acts));
    this.#toSettle.clear();
    try {
      const { clock } = this.#options;
      await withDeadline(clock, ANSWER_DEADLINE_MS, "the answer of every emulator", Promise.all(settling));
    } catch (error) {
      this.#options.log.warn({ problem: messageOf(error) }, "not every guest is taken over yet");
    }
  }

  list(): Guest[] {
    return [...this.#guests.values()].toSorted(
      (left, right) => left.record.createdAtMs - right.record.createdAtMs,
    );
  }

  byName(name: string): Guest | undefined {
    return this.list().find((guest) => guest.name === name);
  }

  byId(id: string): Guest | undefined {
    return this.#guests.get(id);
  }

  /** Whether some other guest's emulator may have this one's memory mapped. */
  isShared({ id }: Guest): boolean {
    return existsSync(this.#options.paths.sharedMark(id));
  }

  /** @throws AgentError `no-such-guest`. */
  find(name: string): Guest {
    const guest = this.byName(name);
    if (guest !== undefined) return guest;
    throw noSuchGuest(name);
  }

  /** @throws AgentError `name-taken` or `too-many-guests`. */
  requireRoomFor(name: string, id?: string): void {
    requireRoomAmong(this.list(), { name, id, maxGuests: this.#options.maxGuests });
  }

  /**
   * Enters a new guest, which holds its name from here on, and writes its record before anything of it is started.
   * @throws AgentError `name-taken` or `too-many-guests`.
   */
  async add(record: GuestRecord): Promise<Guest> {
    this.requireRoomFor(record.config.name, record.config.id);
    const guest = this.#enter(record);
    try {
      await mkdir(this.#options.paths.guest(guest.id), { recursive: true, mode: 0o700 });
      await guest.save();
    } catch (error) {
      await this.remove(guest);
      throw error;
    }
    this.#options.events.emit("guest", { change: "added", guest: guest.view() });
    return guest;
  }

  /**
   * Enters a guest whose emulator has a directory and a record, as a warm one. Its own record is written meanwhile: should the agent end
   * before that, the next one finds a warm emulator and ends it. `Guest.saved` tells when it is there.
   * @throws AgentError `name-taken` or `too-many-guests`.
   */
  addWarm(record: GuestRecord, live: LiveEmulator): Guest {
    this.requireRoomFor(record.config.name, record.config.id);
    const guest = this.#enter(record);
    guest.attach(live);
    guest.note({});
    this.#options.events.emit("guest", { change: "added", guest: guest.view() });
    return guest;
  }

  /**
   * Ends the guest's emulator, if it has one, and removes all there is of it. That a migrated guest ran here is noted first. The next agent brings it to
   * its end where this one does not.
   * @param options.ran whether it may have run, where who removes it knows better than what is kept of it.
   * @throws AgentError `no-room` when that cannot be noted; the guest stays as it is then.
   */
  async remove(guest: Guest, { ran }: { ran?: boolean } = {}): Promise<void> {
    await rememberRun(this.#options, guest.record, ran);
    const view = guest.view();
    const live = guest.detachEmulator();
    await guest.condemn();
    if (live === undefined) await this.#options.source.endLeftover(guest.id);
    else await live.end();
    await guest.whenFree();
    await guest.retire();
    await this.#removeDirectories(guest.id);
    releaseSuspended(guest);
    await this.#options.disks.forget(guest.id, layersOf(this.list(), { but: guest.id }));
    if (this.#guests.delete(guest.id)) this.#options.events.emit("guest", { change: "removed", guest: view });
    await this.collectBootFiles();
  }

  /** Lets go of every emulator; they run on, for another agent to find. */
  async leaveAll(): Promise<void> {
    // First of all: a child whose agent has let go of it must not be taken for one that cannot be given its pages.
    for (const guest of this.list()) if (guest.hasEmulator) guest.live.shared.detach();
    for (const guest of this.list()) {
      guest.detachEmulator()?.leave();
      await guest.retire();
    }
  }

  /** Removes the boot files no guest refers to. */
  async collectBootFiles(): Promise<void> {
    const used = new Set(this.list().flatMap((guest) => guest.digests));
    for (const elsewhere of this.digestsElsewhere) for (const digest of elsewhere()) used.add(digest);
    const removed = await this.#options.boot.collect(used);
    if (removed.length > 0) this.#options.log.info({ removed }, "boot files that no guest uses were removed");
  }

  #enter(record: GuestRecord): Guest {
    const guest = new Guest({ ...this.#options, record });
    this.#guests.set(guest.id, guest);
    return guest;
  }

  async #load(id: string): Promise<void> {
    const { paths, log } = this.#options;
    const record = await readRecord(paths.record(id));
    if (record === undefined) {
      log.warn({ id }, "a guest's directory without a record is removed");
      await this.#removeDirectories(id);
      return;
    }
    if (record.state === "warm" || record.state === "starting" || record.removing === true) {
      await this.#options.source.endLeftover(id);
      await this.#removeDirectories(id);
      return;
    }
    const guest = this.#enter(record);
    // Left by an agent that ended while it froze the guest, or while it thawed it.
    if (record.state !== "frozen") await rm(paths.template(id), { force: true });
    try {
      const suspension = await takeUpSuspended(this.#options, guest);
      if (suspension.isSuspended) return;
      const left = readTransferRecords(paths.guestMemory(id));
      removeStray(paths.guestMemory(id), left);
      const exchange = readExchange(paths.exchange(id));
      const live = isOver(record.state) ? undefined : await this.#adopt(record, exchange);
      if (live === undefined) await this.#settleDead(guest, left);
      else this.#found(guest, live, left, { exchange, suspension: suspension.left });
    } catch (error) {
      if (isOver(guest.state)) return this.withhold(guest, error);
      this.#isWhole = false;
      await this.#settleUnanswering(guest, error);
    }
  }

  #found(
    guest: Guest,
    live: LiveEmulator,
    left: LeftTransfers,
    {
      exchange,
      suspension,
    }: { exchange?: ExchangeRecord | undefined; suspension?: SuspensionRecord | undefined },
  ): void {
    const { paths } = this.#options;
    guest.attach(live);
    this.#toSettle.set(guest, []);
    if (exchange !== undefined) this.whenAnswering(guest, () => settleExchange(guest, exchange, paths));
    if (suspension !== undefined) this.whenAnswering(guest, () => settleSuspension(guest, suspension, paths));
    if (left.parents.length + left.children.length > 0) {
      this.#unfinished.push({ guest, ...left });
      return;
    }
    // Nothing says what its pages are held up for: its writers must not wait for ever. Unless it is for children, which are found later.
    if (this.isShared(guest)) return;
    if (live.memory.registration() !== "write-protect") return;
    live.shared.track(() => {});
    live.shared.release();
    this.whenAnswering(guest, async () => {
      if (guest.state === "running" && (await live.emulator.status()) === "paused")
        await live.emulator.resume();
    });
  }

  /** What cannot be read is listed, holds its name, and is otherwise left as it is: its emulator may run, and nobody else may take its place. */
  async #settleUnreadable(id: string, error: unknown): Promise<void> {
    this.#isWhole = false;
    if (this.#guests.has(id)) return;
    const record = await unreadableRecord(this.#options.paths.record(id), id, messageOf(error));
    const { paths, events, log } = this.#options;
    this.#guests.set(id, new Guest({ record, paths, events, log, isKept: false }));
  }

  /**
   * An emulator that lives and cannot be taken over is left as it is: what its guest did is nowhere else. It stays listed, so that it can be ended.
   */
  async #settleUnanswering(guest: Guest, error: unknown): Promise<void> {
    guest.log.warn({ problem: messageOf(error) }, "a running guest could not be taken over");
    await guest.update({ message: silent(error) });
  }

  /** Waits for the emulator for as long as it takes. */
  async #settleLive(guest: Guest, acts: (() => Promise<void>)[]): Promise<void> {
    const { clock } = this.#options;
    for (let tries = 1; guest.hasEmulator; tries += 1) {
      try {
        await guest.live.emulator.connect();
        for (let act = acts[0]; act !== undefined; act = acts[0]) {
          await act();
          acts.shift();
        }
        if (guest.hasEmulator && guest.occupation === undefined) await this.#settleAlive(guest);
        return;
      } catch (error) {
        if (!guest.hasEmulator) return;
        guest.log.warn({ problem: messageOf(error) }, "a running guest does not answer");
        if (tries === 1) guest.note({ message: silent(error) });
        await sleep(clock, ANSWER_RETRY_MS);
      }
    }
  }

  /** Ends an emulator that was found running and could not be commanded. */
  async endUnanswering(guest: Guest): Promise<void> {
    await this.#options.source.endLeftover(guest.id);
    await guest.update({ state: "crashed", message: "its emulator did not answer and was ended" });
    // Children that are still sent its pages keep them.
    if (guest.occupation === undefined) await removeGuestMemory(this.#options.paths, guest.id);
  }

  async #adopt(record: GuestRecord, exchange?: ExchangeRecord): Promise<LiveEmulator | undefined> {
    const { source, admission, boot } = this.#options;
    const seats = seatsOf(record, exchange);
    // Before the other one is spoken to, which may need what this one has.
    if (seats.ended !== undefined) await source.endLeftover(record.config.id, seats.ended);
    const sharing = record.sharing === undefined ? {} : { sharing: record.sharing };
    const shares = record.sharing !== undefined;
    const reservation = admission.adopt(admission.bytesFor(record.config.memoryBytes, { shares }));
    const holds = digestsOf(record).map((digest) => boot.hold(digest));
    let live: LiveEmulator | undefined;
    try {
      live = await source.adopt({ config: record.config, reservation, holds, ...sharing, seat: seats.own });
    } finally {
      if (live === undefined) {
        reservation.release();
        for (const hold of holds) hold.letGo();
      }
    }
    return live;
  }

  async #settleDead(guest: Guest, left: LeftTransfers): Promise<void> {
    const what = remainsOf(left);
    if (what === "nothing") {
      await rememberRun(this.#options, guest.record);
      this.#guests.delete(guest.id);
      await guest.condemn();
      await this.#removeDirectories(guest.id);
      return;
    }
    if (what === "pages") this.#unfinished.push({ guest, parents: left.parents, children: [] });
    if (!isOver(guest.state)) {
      const message = "its emulator ended while no agent was running";
      const isComplete = left.children.some(({ record }) => record.complete !== undefined);
      await guest.update({ state: "crashed", message, ...(isComplete ? { complete: true } : {}) });
    }
    if (what === "its record") await removeGuestMemory(this.#options.paths, guest.id);
  }

  async #settleAlive(guest: Guest): Promise<void> {
    const state = await liveState(guest, guest.live);
    guest.log.info({ state }, "a running guest was taken over");
    const { message } = guest.record;
    const kept = state === guest.state && message !== undefined && !message.startsWith(SILENT);
    // It is taken over, too, where there is no room for its record.
    guest.note({
      state,
      ...(state === "receiving" ? { message: INTERRUPTED } : kept ? { message } : {}),
    });
  }

  async #removeDirectories(id: string): Promise<void> {
    await removeGuestMemory(this.#options.paths, id);
    await rm(this.#options.paths.guest(id), { recursive: true, force: true });
  }
}
