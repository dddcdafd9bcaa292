import { messageOf } from "../../base/index.js";
import { isFinal, type ChildOutcome, type Params } from "../../control/index.js";
import {
  migrateGuest,
  TransferError,
  type Instant,
  type MigrateOutcome,
  type PrecopySource,
} from "../../transfer/index.js";
import { requireDisksHere } from "../disks/far-disks.js";
import { ForkDisks } from "../disks/fork-disks.js";
import type { SharedOffer } from "../disks/shared-writes.js";
import { AgentError } from "../errors.js";
import { requireTracked } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest, disconnectGuest } from "../network/guest-link.js";
import { networkOfMigrated } from "../network/translate.js";
import type { Services } from "../services.js";
import { chosenName } from "./child-names.js";
import { compressionFor } from "./compression.js";
import { Inquiry } from "./inquiry.js";
import { MigrationEnd } from "./migration-end.js";
import { makeWhole } from "./sharers.js";
import { newParentRecord } from "./new-transfer.js";
import { OutgoingChild } from "./outgoing-child.js";
import { detachParent, makeInstant, ParentKeep } from "./parent-keep.js";

/**
 * Migrates a guest as a client asks for it. Resolves when the child runs; memory goes on being sent afterwards, and then the guest is removed here.
 * @throws AgentError, TransferError or RemoteError when the guest was not migrated; it runs on here, unless the code is `undecided`.
 */
export async function migrateFrom(
  services: Services,
  params: Params<"guest.migrate">,
): Promise<ChildOutcome[]> {
  const guest = services.registry.find(params.name);
  guest.requireIdle();
  guest.requireState("migrated", "running");
  requireTracked(services.paths, "migrated from");
  const url = services.peers.resolve(params.to);
  if (services.peers.isSelf(url)) {
    throw new AgentError("bad-request", `guest ${guest.name} is on this host already; name another one`);
  }
  services.peers.requireReachableFrom(url);
  requireDisksHere(guest);
  await makeWhole(services, guest);
  const writes =
    params.writes === undefined ? {} : { writes: await offerWrites(services, guest, params.writes) };
  return new OutgoingMigration({ services, guest, params, url, ...writes }).run();
}

/** @throws AgentError `bad-request` for a guest that writes nothing; DiskError `not-shared`. */
async function offerWrites({ disks }: Services, guest: Guest, directory: string): Promise<SharedOffer> {
  if (guest.config.disks.length > 0) return disks.sharedWrites.offer(directory);
  throw new AgentError(
    "bad-request",
    `guest ${guest.name} has no disks: there is nothing for it to write to ${directory}`,
  );
}

class OutgoingMigration {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #params: Params<"guest.migrate">;
  readonly #keep: ParentKeep;
  readonly #instant: Instant;
  readonly #child: OutgoingChild;
  readonly #disks: ForkDisks;
  readonly #abort = new AbortController();

  constructor(options: {
    services: Services;
    guest: Guest;
    params: Params<"guest.migrate">;
    url: string;
    writes?: SharedOffer;
  }) {
    const { services, guest, params, url, writes } = options;
    this.#services = services;
    this.#guest = guest;
    this.#params = params;
    this.#disks = new ForkDisks(services, guest);
    this.#keep = ParentKeep.create(services, guest);
    try {
      const record = this.#keep.add(
        newParentRecord(services, guest, {
          kind: "migrate",
          url,
          host: params.to,
          verify: params.verify,
          paused: false,
          sweep: "on",
          ...compressionFor(params.compression, url, services.peers.compression),
          rateLimitBytesPerSecond: params.rateLimitBytesPerSecond,
          priority: params.priority,
          workingSet: params.workingSet,
          linkDeadlineMs: params.linkDeadlineMs,
        }),
      );
      this.#disks.offer(record.record);
      // A guest that is stopped for good writes nothing.
      this.#instant = makeInstant(services, guest, { copies: this.#keep.copies, tracking: false });
      this.#child = new OutgoingChild({
        services,
        guest,
        instant: this.#instant,
        record,
        workingSet: this.#keep.workingSet.set,
        making: {
          names: chosenName(guest.name),
          network: networkOfMigrated(guest.config.network, services.configuration.forwardAddress),
          precopy: params.precopy,
          ...(writes === undefined ? {} : { writes }),
        },
        abort: (reason) => this.#cancel(reason),
      });
    } catch (error) {
      this.#disks.endOffers();
      this.#keep.remove();
      throw error;
    }
  }

  async run(): Promise<ChildOutcome[]> {
    const { entry } = this.#child;
    const vacate = this.#guest.occupyMemory({
      what: `a migration to ${this.#params.to} (transfer ${entry.transfer})`,
      transfers: [entry.transfer],
    });
    const parts = { children: [this.#child], instant: this.#instant, keep: this.#keep };
    const forget = this.#services.book.onDetach(() => detachParent(parts));
    const leave = (): void => {
      forget();
      vacate();
      this.#keep.remove();
    };
    const end = new MigrationEnd({
      services: this.#services,
      guest: this.#guest,
      child: this.#child,
      vacate,
      leave,
    });
    // On disk long before the guest is stopped: a new agent must not take it for one that was paused.
    this.#guest.note({ outgoing: { transfer: entry.transfer, host: this.#params.to } });
    try {
      await this.#prepareDisks();
      const outcome = await this.#migrate();
      await this.#disks.noted();
      end.toMigrated();
      void end.finish();
      return [this.#describe(outcome)];
    } catch (error) {
      if (error instanceof TransferError && error.code === "undecided") void end.decide(error);
      else {
        this.#child.fail(error);
        await this.#disks.abandon();
        this.#guest.note({ state: this.#guest.hasEmulator ? "running" : this.#guest.state, outgoing: null });
        leave();
      }
      throw error;
    } finally {
      this.#disks.endOffers();
    }
  }

  /** Before anything else: the child's emulator is started with what will stand on the disks. */
  async #prepareDisks(): Promise<void> {
    try {
      await this.#disks.prepare();
    } catch (error) {
      this.#instant.release();
      this.#child.session.fail(new TransferError("cancelled", messageOf(error), { cause: error }));
      throw error;
    }
  }

  #cancel(reason: string): void {
    this.#abort.abort();
    // Up to the child's start its session may be failed at will; after that the child itself must be asked.
    if (["preparing", "precopying"].includes(this.#child.entry.phase))
      this.#child.session.fail(new TransferError("cancelled", reason));
  }

  async #migrate(): Promise<MigrateOutcome> {
    const { emulator, shared } = this.#guest.live;
    const { network } = this.#guest.config;
    const { precopy } = this.#child;
    const inquiry = precopy === undefined ? undefined : this.#inquiryAbout(precopy);
    try {
      return await migrateGuest({
        emulator: this.#disks.emulator(emulator),
        memory: shared,
        instant: this.#instant,
        child: this.#child,
        ...(precopy === undefined ? {} : { precopy }),
        network: {
          detach: () => disconnectGuest(emulator, network),
          attach: () => connectGuest(emulator, network),
        },
        verify: this.#params.verify,
        onDigests: (digests) => this.#keep.keepDigests(digests),
        clock: this.#services.clock,
        log: this.#guest.log,
        onStep: (step) => {
          if (step === "precopying") inquiry?.start();
          this.#child.onStep(step);
        },
        signal: this.#abort.signal,
      });
    } finally {
      inquiry?.stop();
    }
  }

  /** A child that is gone never dials again, and nobody but its host can tell: an agent that is started again removes a child that was only prepared. */
  #inquiryAbout(precopy: PrecopySource): Inquiry {
    const fail = (message: string): void => precopy.fail(new TransferError("child-failed", message));
    return new Inquiry({
      ask: () => this.#child.target.report(),
      isDue: () => !precopy.progress().linked,
      onReport: ({ phase, message }) => {
        if (isFinal(phase)) fail(message ?? `its host says that the child is ${phase}`);
      },
      onGone: fail,
      clock: this.#services.clock,
      log: this.#guest.log,
    });
  }

  #describe(outcome: MigrateOutcome): ChildOutcome {
    const { entry, target } = this.#child;
    entry.facts.pauseUs = outcome.downtimeUs;
    entry.facts.firstInstructionUs = outcome.firstInstructionUs;
    entry.addControlBytes(target.controlBytes);
    return {
      transfer: entry.transfer,
      guest: entry.peerGuest,
      host: target.host,
      state: "running",
      memoryBytes: this.#guest.config.memoryBytes,
      pauseUs: outcome.downtimeUs,
      loadUs: outcome.started.loadUs,
      firstInstructionUs: outcome.firstInstructionUs,
    };
  }
}
