import { deferred, isSame, messageOf, type Holder, type Identity, type Timer } from "../../base/index.js";
import type { CallContext, Params, Result, RpcServerSession } from "../../control/index.js";
import { FarDisks } from "../disks/far-disks.js";
import { forgetDisks, startChildWithDisks } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import { bootFilesOf } from "../guests/guest-record.js";
import { requireTracked } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest } from "../network/guest-link.js";
import type { Services } from "../services.js";
import type { BootUploads } from "../store/boot-uploads.js";
import { makeMovable, type Succession } from "./child-move.js";
import type { ChildRelays } from "./child-relays.js";
import { childRecordOf, childSpecOf, requireNetworkOf, requireParentUrl } from "./child-making.js";
import { CompleteChild, reportOf } from "./complete-child.js";
import { isComplete, type HostedChild, type PrepareParams } from "./hosted-child.js";
import { IncomingChild } from "./incoming-child.js";
import { KnownHeads } from "./known-heads.js";
import { PastChildren } from "./past-children.js";
import { readTransferRecords, RecordFile, type ChildRecord } from "./transfer-record.js";

/** How long the host still knows a transfer that is over. */
const REMEMBER_MS = 60_000;

type PeerGuest = PrepareParams["guest"];

/** The children that other agents (or this one) have under way on this host. */
export class IncomingTransfers {
  readonly #services: Services;
  readonly #uploads: BootUploads;
  readonly #past: PastChildren;
  readonly #children = new Map<number, HostedChild>();
  /** Who has the parent of each child, and alone may command it. */
  readonly #holders = new Map<number, Holder>();
  /** Transfers whose child is here and could not be taken over. */
  readonly #unsettled = new Set<number>();
  /** Each resolves when that is over, well or badly. */
  readonly #preparing = new Map<number, Promise<void>>();
  readonly #heads = new KnownHeads();
  readonly #forgetting = new Set<Timer>();

  constructor(services: Services, uploads: BootUploads) {
    this.#services = services;
    this.#past = new PastChildren(services);
    this.#uploads = uploads;
  }

  /** Makes a guest that waits for its device state, or says which boot files it lacks. */
  async prepare(params: PrepareParams, { session }: CallContext): Promise<Result<"peer.prepare">> {
    const { transfer, guest } = params;
    this.#services.requireAccepting();
    requireTracked(this.#services.paths, "forked or migrated to");
    requireParentUrl(this.#services, params.parentUrl, session.identity);
    if (this.#children.has(transfer) || this.#preparing.has(transfer)) {
      throw new AgentError("busy", `transfer ${transfer} is under way on this host already`);
    }
    const over = deferred<void>();
    this.#preparing.set(transfer, over.promise);
    try {
      await this.#services.catalogue.requireMachine(guest.architecture, guest.machine);
      this.#services.registry.requireRoomFor(guest.name, guest.id);
      const missingFiles = await this.#missing(guest, session);
      if (missingFiles.length > 0) return { ready: false, missingFiles };
      await requireNetworkOf(this.#services, params);
      await this.#make(params, session);
      return { ready: true, missingFiles: [], takesAhead: true };
    } finally {
      this.#preparing.delete(transfer);
      over.resolve();
    }
  }

  start(params: Params<"peer.start">, { session }: CallContext): Promise<Result<"peer.start">> {
    return this.#find(params.transfer, session.identity).start(params, session);
  }

  async run(params: Params<"peer.run">, { session }: CallContext): Promise<Result<"peer.run">> {
    const { transfer } = params;
    const guest = this.#formerChild(transfer, session.identity);
    if (guest === undefined) return this.#find(transfer, session.identity).run(session);
    if (guest.state === "running") return { loadUs: 0, runUs: 0 };
    throw this.#past.cannotRun(guest, transfer);
  }

  /** What a child lacks whose memory was copied ahead. */
  async lacks(params: Params<"peer.lacks">, { session }: CallContext): Promise<Result<"peer.lacks">> {
    this.#find(params.transfer, session.identity).lacks(params);
    return {};
  }

  /** Has a child pass on to another one of its instant. */
  async relayTo(
    { transfer, to }: Params<"peer.relayTo">,
    { session }: CallContext,
  ): Promise<Result<"peer.relayTo">> {
    this.#relaysOf(transfer, session.identity).passTo(to);
    return {};
  }

  /** Has a child be passed on to by another one of its instant. */
  async relayFrom(
    { transfer, from }: Params<"peer.relayFrom">,
    { session }: CallContext,
  ): Promise<Result<"peer.relayFrom">> {
    this.#relaysOf(transfer, session.identity).feedFrom(from);
    return {};
  }

  /** The first part of the device state of a child that is there, or is being prepared. */
  async ahead(params: Params<"peer.ahead">, { session }: CallContext): Promise<Result<"peer.ahead">> {
    // It is sent directly behind what has the child prepared.
    await this.#preparing.get(params.transfer);
    const child = this.#find(params.transfer, session.identity);
    const head = this.#heads.take(params);
    if (head !== undefined) await child.ahead(head);
    return { taken: head !== undefined };
  }

  async show(params: Params<"peer.show">, { session }: CallContext): Promise<Result<"peer.show">> {
    const { transfer } = params;
    const guest = this.#formerChild(transfer, session.identity);
    if (guest === undefined) return this.#find(transfer, session.identity).report(session);
    const { children } = readTransferRecords(this.#services.paths.guestMemory(guest.id));
    const record = children.find((file) => file.record.transfer === transfer)?.record;
    if (record !== undefined) return reportOf(record);
    return { transfer, phase: "failed", message: `nothing is known of how guest ${guest.name} came here` };
  }

  /** Answers when the child is gone, or was never there. */
  async cancel(params: Params<"peer.cancel">, { session }: CallContext): Promise<Result<"peer.cancel">> {
    const { transfer, reason } = params;
    const guest = this.#formerChild(transfer, session.identity);
    if (guest === undefined) await this.#find(transfer, session.identity).cancel(reason);
    else await this.#past.cancel(guest, transfer, session.identity);
    return {};
  }

  /** Answers when the child does not run and never will, or was never there. One that was complete may have gone on to another host, by any way. */
  async fence(params: Params<"peer.fence">, { session }: CallContext): Promise<Result<"peer.fence">> {
    const { transfer, reason } = params;
    this.#past.requireOwn(transfer, session.identity);
    const guest = this.#formerChild(transfer, session.identity);
    if (guest === undefined && this.#endedIncomplete(transfer, session.identity)) return {};
    if (guest === undefined) await this.#find(transfer, session.identity).fence(reason);
    else if (guest.state === "running" || guest.state === "migrated") throw isComplete(guest);
    else if (guest.state !== "paused")
      throw new AgentError(
        "not-ready",
        `guest ${guest.name} is ${guest.state}; it is not certain that it stands still`,
      );
    return {};
  }

  /**
   * Goes on with the child of an agent that has ended: its memory is served at once.
   * @returns what is to be done once its emulator answers.
   * @throws AgentError or MemoryError when that is not possible; its parent is told to ask again until it is.
   */
  async recover(guest: Guest, record: RecordFile<ChildRecord>): Promise<() => Promise<void>> {
    const { transfer, step, complete, failed } = record.record;
    // It is kept as it is: its operator decides.
    if (failed !== undefined) return async () => {};
    if (step === "loading") {
      guest.log.info({ transfer }, "a child that was never loaded is removed");
      await this.#services.registry.remove(guest, { ran: false });
      return async () => {};
    }
    try {
      if (complete !== undefined && guest.live.memory.registration() === "missing")
        guest.live.memory.fillable().release();
      const child =
        complete === undefined ? this.#goOn(guest, record) : new CompleteChild(this.#services, guest, record);
      this.#children.set(transfer, child);
      this.#holders.set(transfer, record.record.holder);
      if (complete === undefined) guest.log.info({ transfer }, "a child of an earlier agent goes on");
      else this.#forgetLater(transfer);
      return step === "starting" ? () => this.#settleStarting(guest, record, child) : () => child.settle();
    } catch (error) {
      this.#unsettled.add(transfer);
      throw error;
    }
  }

  /** Its emulator was to load its state and let it run: whether it has had all of it, it says itself. */
  async #settleStarting(
    guest: Guest,
    record: RecordFile<ChildRecord>,
    child: IncomingChild | CompleteChild,
  ): Promise<void> {
    const { emulator } = guest.live;
    let status = await emulator.status();
    if (status === "incoming") {
      // It may have had all of its state, and been told to run when it has read that. It is not to run on after it was given up here.
      await emulator.stop({ forGood: true });
      status = await emulator.status();
    }
    // Whoever watches over the emulator ends the child.
    if (status === "ended") return;
    if (status !== "incoming") {
      record.update({ step: "running" });
      return child.settle();
    }
    const { transfer, complete } = record.record;
    guest.log.info({ transfer }, "a child that was never loaded is removed");
    if (complete === undefined) return child.cancel("its agent ended before it was loaded");
    child.detach();
    this.#children.delete(transfer);
    this.#holders.delete(transfer);
    await this.#services.registry.remove(guest, { ran: false });
  }

  /** A child that is here, and out of this agent's hands: its parent must not take it for gone. */
  withhold(transfer: number): void {
    this.#unsettled.add(transfer);
  }

  /** Keeps emulators warm for children of a guest of a peer. */
  async warm(params: Params<"peer.warm">, { session }: CallContext): Promise<Result<"peer.warm">> {
    this.#services.requireAccepting();
    requireTracked(this.#services.paths, "forked or migrated to");
    const { guest, count } = params;
    await this.#services.catalogue.requireMachine(guest.architecture, guest.machine);
    const missingFiles = count === 0 ? [] : await this.#missing(guest, session);
    if (missingFiles.length > 0) return { ready: false, missingFiles, count: 0 };
    const spec = childSpecOf(this.#services, guest, "fork");
    return { ready: true, missingFiles: [], count: await this.#services.starter.pool.warm(spec, count) };
  }

  /** Dials the page lanes of a child that is to come. */
  async spare(
    { transfer, token, parentUrl }: Params<"peer.spare">,
    { session }: CallContext,
  ): Promise<Result<"peer.spare">> {
    this.#services.requireAccepting();
    const holder = holderOf(session.identity);
    await this.#services.lanesAhead.dial({ transfer, token, url: parentUrl, holder });
    return {};
  }

  /** Leaves every child to the next agent. */
  detach(): void {
    for (const child of this.#children.values()) child.detach();
  }

  close(): void {
    for (const timer of this.#forgetting) timer.cancel();
  }

  async #missing(guest: PeerGuest, session: RpcServerSession): Promise<string[]> {
    const files = bootFilesOf(guest);
    const missing: string[] = [];
    // Held for a while, so that what is here now is still here when it is used.
    const here = await Promise.all(files.map((file) => this.#uploads.keep(file.sha256)));
    for (const [index, file] of files.entries()) {
      if (here[index] === true) continue;
      this.#uploads.expect(session, file);
      missing.push(file.sha256);
    }
    return [...new Set(missing)];
  }

  async #make(params: PrepareParams, session: RpcServerSession): Promise<void> {
    const { registry, starter, clock } = this.#services;
    const { guest: wanted, kind, transfer } = params;
    // Only this agent itself names its own socket: the parent is a guest of this host then.
    const isHere = params.parentUrl.startsWith("unix:");
    const far = params.disks;
    const fork = isHere
      ? this.#services.disks.forks.get(params.parent.guest)
      : far && new FarDisks(this.#services, { params, disks: far, holder: holderOf(session.identity) });
    const live = await startChildWithDisks(this.#services, fork, {
      spec: childSpecOf(this.#services, wanted, kind),
      what: `guest ${wanted.name}`,
    });
    let guest;
    try {
      guest = registry.addWarm(
        childRecordOf(this.#services, params, { live, holder: holderOf(session.identity) }),
        live,
      );
    } catch (error) {
      await starter.discard(live);
      await forgetDisks(this.#services, live.id);
      throw error;
    }
    let child: IncomingChild | undefined;
    try {
      const directory = this.#services.paths.guestMemory(guest.id);
      const startedAtMs = clock.wallMs();
      const record = RecordFile.create<ChildRecord>(directory, {
        version: 1,
        side: "child",
        transfer,
        params,
        holder: holderOf(session.identity),
        step: "loading",
        incarnation: 0,
        startedAtMs,
      });
      child = new IncomingChild({
        services: this.#services,
        guest,
        live,
        record,
        session,
        onOver: () => this.#forgetLater(transfer),
      });
      makeMovable(this.#services, child, (next, from) => this.#goOn(guest, next, from));
      this.#children.set(transfer, child);
      this.#holders.set(transfer, record.record.holder);
      // It dials while its emulator is connected. A migrated guest has to wait with that until its parent has left the network.
      child.begin();
      if (kind === "fork") await connectGuest(live.emulator, guest.config.network);
    } catch (error) {
      if (child === undefined) await registry.remove(guest, { ran: false });
      else await child.cancel(messageOf(error));
      throw error;
    }
  }

  #goOn(guest: Guest, record: RecordFile<ChildRecord>, from: Succession = {}): IncomingChild {
    const { transfer, incarnation } = record.record;
    record.update({ incarnation: incarnation + 1 });
    const child = new IncomingChild({
      services: this.#services,
      guest,
      live: guest.live,
      record,
      onOver: () => this.#forgetLater(transfer),
      ...from,
    });
    this.#children.set(transfer, child);
    makeMovable(this.#services, child, (next, others) => this.#goOn(guest, next, others));
    try {
      child.begin();
    } catch (error) {
      // It is gone on with where it was.
      if (from.moving !== undefined) child.give();
      throw error;
    }
    return child;
  }

  /** The guest that is the child of a transfer this agent does not know any more. */
  #formerChild(transfer: number, asking: Identity): Guest | undefined {
    return this.#isKnown(transfer) ? undefined : this.#past.live(transfer, asking);
  }

  /** It ended here, or was removed here, before it could go on to any other host. */
  #endedIncomplete(transfer: number, asking: Identity): boolean {
    if (this.#isKnown(transfer) || !this.#services.registry.isWhole) return false;
    const child = this.#past.ended(transfer, asking);
    return child !== undefined && !child.complete && child.movedTo === undefined;
  }

  #isKnown(transfer: number): boolean {
    return this.#children.has(transfer) || this.#preparing.has(transfer) || this.#unsettled.has(transfer);
  }

  /** A child of who asks; others' are as if they were not there. */
  #find(transfer: number, asking: Identity): HostedChild {
    const child = this.#children.get(transfer);
    const holder = this.#holders.get(transfer);
    if (child !== undefined && holder !== undefined && isSame(holder, asking)) return child;
    if (this.#unsettled.has(transfer) || !this.#services.registry.isWhole) {
      throw new AgentError(
        "not-ready",
        `this host has guests its agent could not take over, perhaps the child of transfer ${transfer}; ask again`,
      );
    }
    this.#past.requireNone(transfer, asking);
    throw new AgentError("no-such-transfer", `this host has no child of transfer ${transfer}`);
  }

  #relaysOf(transfer: number, asking: Identity): ChildRelays {
    const { relays } = this.#find(transfer, asking);
    if (relays !== undefined) return relays;
    throw new AgentError("bad-state", `the child of transfer ${transfer} has all its memory`);
  }

  /** A child that is over is still known for a while: its parent's agent may ask for its end once more. */
  #forgetLater(transfer: number): void {
    const timer = this.#services.clock.after(REMEMBER_MS, () => {
      this.#forgetting.delete(timer);
      // One that is held can still be let run.
      if (this.#children.get(transfer)?.isHeld === true) this.#forgetLater(transfer);
      else {
        this.#children.delete(transfer);
        this.#holders.delete(transfer);
      }
    });
    this.#forgetting.add(timer);
  }
}

function holderOf({ kind, name }: Identity): Holder {
  return { kind, name };
}
