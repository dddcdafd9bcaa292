import { messageOf } from "../../base/index.js";
import type { ChildOutcome, Params, PauseParts as PausePartsView, StartMarks } from "../../control/index.js";
import { childrenOf } from "../../control/index.js";
import {
  forkGuest,
  TransferError,
  type ForkMarks,
  type Instant,
  type ForkOutcome,
  type PageDigests,
  type PauseParts,
} from "../../transfer/index.js";
import { requireDisksHere } from "../disks/far-disks.js";
import { ForkDisks } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import { requireTracked } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import { frozenEmulator } from "../guests/template.js";
import { networkOfForked, type NetworkForPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import { chosenName, nameBeside, NumberedNames, type ChildNames } from "./child-names.js";
import { compressionFor } from "./compression.js";
import type { ForkingChild } from "./forking-child.js";
import { detachParent, makeInstant, ParentKeep } from "./parent-keep.js";
import { forkInTwoAttempts, type ForkAttempt } from "./fork-attempts.js";
import { linkRelays } from "./link-relays.js";
import { newParentRecord } from "./new-transfer.js";
import { OutgoingChild } from "./outgoing-child.js";
import { canBeShared, makeWhole } from "./sharers.js";
import { SharingChild } from "./sharing-child.js";
import { viewOfError } from "./transfer-entry.js";

/**
 * Forks a guest as a client asks for it. Resolves when every child runs, is held, or has failed by itself; memory goes on being sent afterwards.
 * @throws AgentError, TransferError or RemoteError when no child came to be; the parent runs on then.
 */
export async function forkFrom(services: Services, params: Params<"guest.fork">): Promise<ChildOutcome[]> {
  const guest = services.registry.find(params.name);
  for (const name of params.names ?? []) nameBeside(guest.name, name);
  guest.requireIdle();
  guest.requireState("forked", "running", "frozen");
  requireTracked(services.paths, "forked on");
  if (
    params.forwards.length > 0 &&
    guest.config.network.mode !== "user" &&
    guest.config.network.mode !== "isolated"
  ) {
    throw new AgentError(
      "bad-request",
      `guest ${guest.name} has no user network, so its children can have no forwards`,
    );
  }
  const urls =
    params.to.length === 0
      ? [services.peers.resolve(undefined)]
      : params.to.map((host) => services.peers.resolve(host));
  for (const url of urls) services.peers.requireReachableFrom(url);
  if (urls.some((url) => !services.peers.isSelf(url))) requireDisksHere(guest);
  await makeWhole(services, guest);
  const arrivedUs = services.clock.nowUs();
  return forkInTwoAttempts(() => new OutgoingFork({ services, guest, params, urls, arrivedUs }), guest.log);
}

interface Making {
  names: ChildNames;
  network: NetworkForPeer;
}

interface ForkOptions {
  services: Services;
  guest: Guest;
  params: Params<"guest.fork">;
  /** Hosts, filled in turn. */
  urls: readonly string[];
  /** When the command arrived, by the agent's clock. */
  arrivedUs: number;
}

/** One fork under way: its instant and its children. */
class OutgoingFork implements ForkAttempt<ChildOutcome[]> {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #params: Params<"guest.fork">;
  readonly #keep: ParentKeep;
  readonly #instant: Instant;
  readonly #children: ForkingChild[];
  readonly #abort = new AbortController();
  readonly #arrivedUs: number;
  readonly #isFrozen: boolean;
  readonly #disks: ForkDisks;

  constructor(options: ForkOptions) {
    const { services, guest, params, urls } = options;
    this.#services = services;
    this.#guest = guest;
    this.#params = params;
    this.#arrivedUs = options.arrivedUs;
    // Its memory is not written, whatever becomes of its children.
    this.#isFrozen = guest.state === "frozen";
    this.#disks = new ForkDisks(services, guest);
    this.#keep = ParentKeep.create(services, guest);
    try {
      this.#instant = makeInstant(services, guest, {
        copies: this.#keep.copies,
        tracking: !this.#isFrozen,
      });
      const row = new NumberedNames(guest.name);
      this.#children = Array.from({ length: childrenOf(params) }, (_, index) => {
        const name = params.names?.[index];
        const url = urls[index % urls.length] as string;
        const making = {
          names: name === undefined ? row : chosenName(nameBeside(guest.name, name)),
          network: networkOfForked(guest.config.network, {
            attached: params.network === "attached",
            forwards: params.forwards.map((forward) => ({ ...forward, hostPort: forward.hostPort + index })),
          }),
        };
        const shares = params.memory === "shared" && services.peers.isSelf(url) && canBeShared(guest);
        return shares
          ? this.#sharingChild(making)
          : this.#outgoingChild(making, { url, host: params.to[index % Math.max(1, params.to.length)] });
      });
    } catch (error) {
      this.#disks.endOffers();
      this.#keep.remove();
      throw error;
    }
  }

  #sharingChild(making: Making): ForkingChild {
    const { verify, paused } = this.#params;
    return new SharingChild({
      services: this.#services,
      parent: this.#guest,
      ...making,
      verify,
      paused,
      abort: (reason) => this.#cancelAll(reason),
    });
  }

  #outgoingChild(making: Making, { url, host }: { url: string; host: string | undefined }): ForkingChild {
    const services = this.#services;
    const guest = this.#guest;
    const params = this.#params;
    const wanted = {
      kind: "fork" as const,
      url,
      host: host ?? services.configuration.name,
      verify: params.verify,
      paused: params.paused,
      sweep: params.sweep,
      ...compressionFor(params.compression, url, services.peers.compression),
      rateLimitBytesPerSecond: params.rateLimitBytesPerSecond,
      priority: params.priority,
      workingSet: params.workingSet,
      linkDeadlineMs: params.linkDeadlineMs,
    };
    const spare = services.spares.take(url);
    try {
      const record = this.#keep.add(newParentRecord(services, guest, wanted, spare));
      this.#disks.offer(record.record);
      return new OutgoingChild({
        services,
        guest,
        instant: this.#instant,
        record,
        workingSet: this.#keep.workingSet.set,
        making,
        spare,
        abort: (reason) => this.#cancelAll(reason),
      });
    } catch (error) {
      spare?.close();
      throw error;
    }
  }

  async run(): Promise<ChildOutcome[]> {
    const transfers = this.#children.map(({ entry }) => entry.transfer);
    const hosts = [...new Set(this.#children.map(({ target }) => target.host))].join(", ");
    const vacate = this.#guest.occupyMemory({
      what: `a fork to ${hosts} (transfers ${transfers.join(", ")})`,
      transfers,
    });
    const parts = { children: this.#children, instant: this.#instant, keep: this.#keep };
    const forget = this.#services.book.onDetach(() => detachParent(parts));
    const leave = (): void => {
      forget();
      vacate();
      this.#keep.remove();
    };
    try {
      await this.#prepareDisks();
      const outcome = await forkGuest({
        emulator: this.#disks.emulator(
          this.#isFrozen ? frozenEmulator(this.#services, this.#guest) : this.#guest.live.emulator,
        ),
        memory: this.#guest.live.shared,
        instant: this.#instant,
        children: this.#children,
        verify: this.#params.verify,
        arrivedUs: this.#arrivedUs,
        onDigests: (digests) => this.#onDigests(digests),
        paused: this.#params.paused,
        clock: this.#services.clock,
        log: this.#guest.log,
        onStep: (step) => this.#children.forEach((child) => child.onStep(step)),
        onPrepared: () => linkRelays(this.#services, this.#guest, this.#sent(), this.#params.relay),
        signal: this.#abort.signal,
      });
      await this.#disks.noted();
      const views = this.#children.map((child, index) => this.#describe(child, outcome, index));
      void finishFork(this.#guest, this.#children, leave);
      return views;
    } catch (error) {
      for (const child of this.#children) child.fail(error);
      await this.#disks.abandon();
      leave();
      throw error;
    } finally {
      this.#disks.endOffers();
      this.#services.disks.forks.delete(this.#guest.name);
    }
  }

  /** Before anything else of the fork: its children's emulators are started with what stands on the disks. */
  async #prepareDisks(): Promise<void> {
    this.#services.disks.forks.set(this.#guest.name, this.#disks);
    try {
      await this.#disks.prepare();
    } catch (error) {
      this.#instant.release();
      for (const { session } of this.#children)
        session.fail(new TransferError("cancelled", messageOf(error), { cause: error }));
      throw error;
    }
  }

  forget(): void {
    for (const { entry } of this.#children) this.#services.book.drop(entry);
  }

  /** The children that are sent their memory. */
  #sent(): OutgoingChild[] {
    return this.#children.filter((child) => child instanceof OutgoingChild);
  }

  #onDigests(digests: PageDigests): void {
    this.#keep.keepDigests(digests);
    for (const child of this.#children) child.onDigests?.(digests);
  }

  /** Until the instant a fork fails as a whole. */
  #cancelAll(reason: string): void {
    this.#abort.abort();
    for (const child of this.#children) child.session.fail(new TransferError("cancelled", reason));
  }

  #describe(child: ForkingChild, outcome: ForkOutcome, index: number): ChildOutcome {
    const result = outcome.children[index];
    const common = {
      transfer: child.entry.transfer,
      guest: child.entry.peerGuest,
      host: child.target.host,
      memoryBytes: this.#guest.config.memoryBytes,
      pauseUs: outcome.pause.total,
      pauseParts: pausePartsView(outcome.pause),
    };
    child.entry.facts.pauseUs = common.pauseUs;
    child.entry.facts.pauseParts = common.pauseParts;
    child.entry.addControlBytes(child.target.controlBytes);
    if (result === undefined || "error" in result) {
      child.fail(result?.error);
      return { ...common, state: "failed", error: viewOfError(result?.error) };
    }
    const { loadUs, runUs } = result.started;
    const startMarks = { ...startMarksView(outcome.marks), childLoadUs: loadUs, childRunUs: runUs };
    child.entry.facts.startMarks = startMarks;
    if (this.#params.paused) return { ...common, state: "paused", loadUs, startMarks };
    const { firstInstructionUs } = result;
    child.entry.facts.firstInstructionUs = firstInstructionUs;
    return { ...common, state: "running", loadUs, firstInstructionUs, startMarks };
  }
}

/** The guest is free again when the last child needs it no more; so is its memory, should its emulator end before. */
export async function finishFork(
  guest: Guest,
  children: readonly Pick<ForkingChild, "finish">[],
  leave: () => void,
): Promise<void> {
  try {
    await Promise.all(children.map((child) => child.finish()));
  } catch (error) {
    guest.log.error({ problem: messageOf(error) }, "a fork could not be brought to its end in order");
  } finally {
    leave();
  }
}

/** The parts of a pause by the names the API has for them. */
export function pausePartsView(pause: PauseParts): PausePartsView {
  const { stop, rearm, save, verify, resume, rearmedPages } = pause;
  return { stopUs: stop, rearmUs: rearm, saveUs: save, verifyUs: verify, resumeUs: resume, rearmedPages };
}

/** When a fork came to what, by the names the API has for it. */
function startMarksView(marks: ForkMarks): StartMarks {
  return Object.fromEntries(Object.entries(marks).map(([mark, atUs]) => [`${mark}Us`, atUs]));
}
