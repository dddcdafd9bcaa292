import { messageOf } from "../../base/index.js";
import type { ChildOutcome, Params } from "../../control/index.js";
import { CopiesFile } from "../../memory/index.js";
import { Instant, migrateGuest, TransferError, type MigrateOutcome } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest, disconnectGuest } from "../network/guest-link.js";
import { networkOfMigrated } from "../network/translate.js";
import type { Services } from "../services.js";
import { chosenName } from "./child-names.js";
import { compressFor } from "./compression.js";
import { OutgoingChild } from "./outgoing-child.js";
import { whatBecameOf } from "./undecided.js";
import { offerRollBack, rollBackAdvice, runOn } from "./roll-back.js";

const MIB = 1024 * 1024;

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
  const url = services.peers.resolve(params.to);
  if (services.peers.isSelf(url)) {
    throw new AgentError("bad-request", `guest ${guest.name} is on this host already; name another one`);
  }
  services.peers.requireReachableFrom(url);
  return new OutgoingMigration(services, guest, params, url).run();
}

class OutgoingMigration {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #params: Params<"guest.migrate">;
  readonly #copies: CopiesFile;
  readonly #instant: Instant;
  readonly #child: OutgoingChild;
  readonly #abort = new AbortController();

  constructor(services: Services, guest: Guest, params: Params<"guest.migrate">, url: string) {
    this.#services = services;
    this.#guest = guest;
    this.#params = params;
    this.#copies = CopiesFile.create(services.paths.copies(guest.id), guest.live.memory.pageCount);
    this.#instant = new Instant({
      memory: guest.live.memory.tracked(),
      copies: this.#copies,
      copyBudgetBytes: services.configuration.limits.copiesMib * MIB,
      // A guest that is stopped for good writes nothing.
      tracking: false,
      clock: services.clock,
      log: guest.log,
    });
    this.#child = new OutgoingChild({
      services,
      guest,
      kind: "migrate",
      instant: this.#instant,
      url,
      host: params.to,
      names: chosenName(guest.name),
      network: networkOfMigrated(guest.config.network, services.configuration.forwardAddress),
      verify: params.verify,
      precopy: params.precopy,
      paused: false,
      sweep: "on",
      compress: compressFor(params.compression, url),
      rateLimitBytesPerSecond: params.rateLimitBytesPerSecond,
      abort: (reason) => {
        this.#abort.abort();
        // Up to the child's start its session may be failed at will; after that the child itself must be asked.
        if (["preparing", "precopying"].includes(this.#child.entry.phase))
          this.#child.session.fail(new TransferError("cancelled", reason));
      },
    });
  }

  async run(): Promise<ChildOutcome[]> {
    const { entry } = this.#child;
    const vacate = this.#guest.occupyMemory({
      what: `a migration to ${this.#params.to} (transfer ${entry.transfer})`,
      transfers: [entry.transfer],
    });
    const leave = (): void => {
      vacate();
      this.#copies.remove();
    };
    // On disk long before the guest is stopped: a new agent must not take it for one that was paused.
    this.#guest.note({ outgoing: { transfer: entry.transfer, host: this.#params.to } });
    try {
      const outcome = await this.#migrate();
      this.#toMigrated();
      void this.#finish(leave);
      return [this.#describe(outcome)];
    } catch (error) {
      if (error instanceof TransferError && error.code === "undecided") {
        this.#guest.note({ state: "paused", message: error.message.slice(0, 400) });
        void this.#decide(error, leave);
      } else {
        this.#child.fail(error);
        this.#guest.note({ state: this.#guest.hasEmulator ? "running" : this.#guest.state, outgoing: null });
        leave();
      }
      throw error;
    }
  }

  #migrate(): Promise<MigrateOutcome> {
    const { emulator, memory } = this.#guest.live;
    const { network } = this.#guest.config;
    return migrateGuest({
      emulator,
      memory: memory.tracked(),
      instant: this.#instant,
      child: this.#child,
      ...(this.#child.precopy === undefined ? {} : { precopy: this.#child.precopy }),
      network: {
        detach: () => disconnectGuest(emulator, network),
        attach: () => connectGuest(emulator, network),
      },
      verify: this.#params.verify,
      clock: this.#services.clock,
      log: this.#guest.log,
      onStep: (step) => this.#child.onStep(step),
      signal: this.#abort.signal,
    });
  }

  /** The record already says where the guest goes; a disk that is full must not keep it from going on there. */
  #toMigrated(): void {
    const message = `runs on ${this.#params.to}; its memory is still being sent there`;
    this.#guest.note({ state: "migrated", message });
  }

  async #decide(undecided: TransferError, leave: () => void): Promise<void> {
    const { entry, session, target } = this.#child;
    const { clock } = this.#services;
    const { log } = this.#guest;
    const isOver = (): boolean =>
      this.#child.cancelled || !this.#guest.hasEmulator || !this.#services.isAccepting();
    try {
      switch (await whatBecameOf({ ask: () => target.settle(), isOver, clock, log })) {
        case "runs":
          entry.enter("paging", { message: "the child runs after all" });
          this.#child.onStep("paging");
          this.#toMigrated();
          return await this.#finish(leave);
        case "gone":
          session.fail(new TransferError("cancelled", undecided.message));
          this.#child.fail(undecided);
          await runOn(this.#guest);
          return leave();
        case "unknown":
          return await this.#stay(undecided, leave);
      }
    } catch (error) {
      log.error(
        { problem: messageOf(error) },
        "a migration that was undecided could not be brought to its end",
      );
      await this.#stay(new TransferError("undecided", messageOf(error)), leave);
    }
  }

  async #finish(leave: () => void): Promise<void> {
    try {
      const failure = await this.#child.finish(async () => {
        const { transfer } = this.#child.entry;
        this.#guest.log.info({ transfer, to: this.#params.to }, "migrated; the guest is removed here");
        leave();
        await this.#services.registry.remove(this.#guest);
      });
      if (failure !== undefined) await this.#stay(failure, leave);
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "a migrated guest could not be removed in full");
    }
  }

  /** The child may have run, and is lost: what the guest was at the switch is kept for its operator to decide. */
  async #stay(error: TransferError, leave: () => void): Promise<void> {
    const { entry, session } = this.#child;
    session.fail(error);
    this.#child.fail(error);
    leave();
    if (!this.#guest.hasEmulator) return;
    offerRollBack(this.#guest, entry);
    const stopped =
      `stopped as it was when ${this.#params.to} took over; that failed: ${error.message}`.slice(0, 700);
    await this.#guest.update({
      state: "paused",
      message: `${stopped}. ${rollBackAdvice(this.#guest, entry.transfer)}`,
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
