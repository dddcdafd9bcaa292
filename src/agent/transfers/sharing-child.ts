import { codeOf, type CodedError, type Log } from "../../base/index.js";
import {
  digestMemory,
  NOTHING_MOVED,
  SharingSession,
  TransferError,
  type ChildStarted,
  type ChildTarget,
  type ParentStep,
  type PageDigests,
} from "../../transfer/index.js";
import { forgetDisks, startChildWithDisks } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { connectGuest } from "../network/guest-link.js";
import type { NetworkForPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import { childRecordOf, requireNetworkOf, sharingSpecOf } from "./child-making.js";
import type { ChildNames } from "./child-names.js";
import { newTransferNumber } from "./new-transfer.js";
import type { ForkingChild } from "./forking-child.js";
import { peerGuestOf } from "./prepare-params.js";
import { verifyError } from "./outgoing-errors.js";
import { shareWith } from "./sharers.js";
import { TransferEntry } from "./transfer-entry.js";

export interface SharingChildOptions {
  services: Services;
  parent: Guest;
  names: ChildNames;
  network: NetworkForPeer;
  /** Compare every page with what it was at the instant before the child runs. */
  verify: boolean;
  paused: boolean;
  /** Cancels the whole fork while it has no child that runs. */
  abort: (reason: string) => void;
}

/** A child on its parent's own host that maps its parent's memory privately: nothing of that is sent, and nothing copied until somebody writes. */
export class SharingChild implements ForkingChild {
  readonly entry: TransferEntry;
  readonly session: SharingSession;
  readonly target: ChildTarget & { readonly controlBytes: number };
  readonly #options: SharingChildOptions;
  readonly #log: Log;
  #live: LiveEmulator | undefined;
  #guest: Guest | undefined;
  #digests: PageDigests | undefined;
  #sharedPages: () => number = () => 0;
  /** Bytes of the device state that its emulator was given before the instant. */
  #aheadBytes = 0;
  #running = false;
  #prepared: Promise<void> | undefined;

  constructor(options: SharingChildOptions) {
    const { services, parent } = options;
    const { clock, configuration } = services;
    this.#options = options;
    const transfer = newTransferNumber(services);
    this.#log = parent.log.child({ transfer });
    this.entry = new TransferEntry({
      transfer,
      kind: "fork",
      role: "parent",
      guest: parent.name,
      peerGuest: parent.name,
      host: configuration.name,
      pageCount: parent.live.memory.pageCount,
      clock,
    });
    this.session = new SharingSession(() => this.#join());
    this.target = {
      transfer,
      host: configuration.name,
      controlBytes: 0,
      prepare: () => (this.#prepared = this.#prepare()),
      sendAhead: (head) => this.#begin(head),
      start: (deviceState, { run }) => this.#start(deviceState, run),
      run: () => this.#run(),
      cancel: () => this.#remove(),
    };
    this.entry.commands = {
      cancel: async (reason) => options.abort(reason),
      steer: () => {
        throw new AgentError("bad-request", `transfer ${transfer} shares its memory and sends none of it`);
      },
      run: async () => void (await this.#run()),
    };
    this.entry.countFrom(() => this.#count());
    services.book.add(this.entry);
  }

  onStep(step: ParentStep): void {
    if (!this.entry.over) this.entry.enter(step);
  }

  onDigests(digests: PageDigests): void {
    this.#digests = digests;
  }

  fail(error: unknown): void {
    if (!this.entry.over) this.entry.enter(codeOf(error) === "cancelled" ? "cancelled" : "failed", { error });
  }

  async finish(): Promise<CodedError | undefined> {
    const { phase } = this.session;
    const error = phase.phase === "failed" ? phase.error : this.#verifyError();
    if (!this.entry.over)
      this.entry.enter(error === undefined ? "complete" : "failed", error === undefined ? {} : { error });
    return error;
  }

  /** There is nothing for the next agent to go on with but what the child itself is. */
  detach(): void {}

  #verifyError(): CodedError | undefined {
    return this.#options.verify ? verifyError(this.entry) : undefined;
  }

  async #prepare(): Promise<void> {
    const { services, parent, network, names } = this.#options;
    const { registry, starter } = services;
    const made = peerGuestOf(parent, network, "fork");
    await requireNetworkOf(services, { guest: made, kind: "fork" });
    const live = await startChildWithDisks(services, services.disks.forks.get(parent.name), {
      spec: sharingSpecOf(services, parent, made),
      what: `a child of guest ${parent.name}`,
    });
    try {
      if (live.memory.private?.ownPages !== 0)
        throw new AgentError("transfer-failed", "an emulator wrote memory before it was given a guest");
      this.#guest = registry.addWarm(this.#recordOf(live, freeName(services, names)), live);
    } catch (error) {
      await starter.discard(live);
      await forgetDisks(services, live.id);
      throw error;
    }
    this.entry.peerGuest = this.#guest.name;
    this.#live = live;
    void live.exited.then(() => this.session.leave("the child's emulator has ended"));
    await connectGuest(live.emulator, this.#guest.config.network);
  }

  #recordOf(live: LiveEmulator, name: string) {
    const { services, parent, network } = this.#options;
    const guest = { ...peerGuestOf(parent, network, "fork"), name };
    const { dev, ino } = live.memory.file;
    const making = {
      guest,
      kind: "fork" as const,
      transfer: this.entry.transfer,
      parent: { guest: parent.name, host: services.configuration.name },
    };
    return {
      ...childRecordOf(services, making, { live }),
      // Should the agent end before it is loaded, the next one removes it.
      state: "starting" as const,
      sharing: { memory: parent.id, dev, ino },
    };
  }

  #join() {
    const { parent, services } = this.#options;
    const sharing = shareWith(services, { parent: parent.live, child: this.#made() });
    this.#sharedPages = () => sharing.sharedPages;
    return sharing;
  }

  async #begin(head: Uint8Array): Promise<void> {
    await this.#prepared;
    this.#aheadBytes = head.length;
    await this.#made().live.emulator.beginDeviceState(head);
  }

  async #start(deviceState: Uint8Array, run: boolean): Promise<ChildStarted> {
    const { clock } = this.#options.services;
    const { guest, live } = this.#made();
    const beganUs = clock.nowUs();
    if (this.#digests !== undefined) await this.#verify(this.#digests);
    this.entry.addControlBytes(deviceState.length);
    await live.emulator.loadDeviceState(deviceState.subarray(this.#aheadBytes));
    const loadUs = clock.nowUs() - beganUs;
    // From its first instruction on it is a guest: a new agent must know it for one.
    await guest.update({ state: run ? "running" : "paused", complete: true });
    if (run) await this.#letRun();
    return { loadUs, runUs: run ? clock.nowUs() - beganUs : 0 };
  }

  async #run(): Promise<ChildStarted> {
    if (this.#running) return { loadUs: 0, runUs: 0 };
    const { clock } = this.#options.services;
    const beganUs = clock.nowUs();
    const { guest } = this.#made();
    guest.requireState("let run", "paused");
    await guest.update({ state: "running" });
    await this.#letRun();
    return { loadUs: 0, runUs: clock.nowUs() - beganUs };
  }

  async #letRun(): Promise<void> {
    await this.#made().live.emulator.resume();
    this.#running = true;
  }

  /** What the child is given is what it sees through its own mapping, before it runs. */
  async #verify(digests: PageDigests): Promise<void> {
    const { clock } = this.#options.services;
    const { live } = this.#made();
    if (live.memory.private === undefined) return;
    const seen = await digestMemory(live.memory.private, clock);
    const mismatches = seen.differences(digests).length;
    this.entry.facts.verify = { checked: seen.pageCount, mismatches };
    if (mismatches > 0) this.#log.error({ mismatches }, "the child sees other pages than its parent had");
  }

  async #remove(): Promise<void> {
    if (this.#guest === undefined) return;
    await this.#options.services.registry.remove(this.#guest);
  }

  #made(): { guest: Guest; live: LiveEmulator } {
    if (this.#guest !== undefined && this.#live !== undefined)
      return { guest: this.#guest, live: this.#live };
    throw new TransferError("child-failed", "the child was never prepared");
  }

  #count() {
    const total = this.#options.parent.hasEmulator ? this.#options.parent.live.memory.pageCount : 0;
    const isThere = this.session.phase.phase === "complete";
    this.entry.facts.shared = this.#sharedPages();
    return { ...NOTHING_MOVED, total, received: isThere ? total : 0, linked: false };
  }
}

/** The first name that is free. @throws AgentError `name-taken` or `too-many-guests`. */
function freeName({ registry }: Services, names: ChildNames): string {
  for (;;) {
    const name = names.next();
    try {
      registry.requireRoomFor(name);
      return name;
    } catch (error) {
      if (codeOf(error) !== "name-taken" || !names.hasMore) throw error;
    }
  }
}
