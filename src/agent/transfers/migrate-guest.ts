import { messageOf } from "../../base/index.js";
import type { ChildOutcome, Params } from "../../control/index.js";
import { Instant, migrateGuest, TransferError, type MigrateOutcome } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest, disconnectGuest } from "../network/guest-link.js";
import { networkOfMigrated } from "../network/translate.js";
import type { Services } from "../services.js";
import { chosenName } from "./child-names.js";
import { compressFor } from "./compression.js";
import { OutgoingChild } from "./outgoing-child.js";

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
  readonly #instant: Instant;
  readonly #child: OutgoingChild;
  readonly #abort = new AbortController();

  constructor(services: Services, guest: Guest, params: Params<"guest.migrate">, url: string) {
    this.#services = services;
    this.#guest = guest;
    this.#params = params;
    this.#instant = new Instant({
      memory: guest.live.memory.tracked(),
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
      paused: false,
      sweep: "on",
      compress: compressFor(params.compression, url),
      rateLimitBytesPerSecond: params.rateLimitBytesPerSecond,
      abort: (reason) => {
        this.#abort.abort();
        // Up to the child's start its session may be failed at will; after that the child itself must be asked.
        if (this.#child.entry.phase === "preparing")
          this.#child.session.fail(new TransferError("cancelled", reason));
      },
    });
  }

  async run(): Promise<ChildOutcome[]> {
    const { entry } = this.#child;
    const leave = this.#guest.occupy({
      what: `a migration to ${this.#params.to} (transfer ${entry.transfer})`,
      transfers: [entry.transfer],
    });
    try {
      const outcome = await this.#migrate();
      await this.#guest.update({
        state: "migrated",
        message: `runs on ${this.#params.to}; its memory is still being sent there`,
      });
      void this.#finish(leave);
      return [this.#describe(outcome)];
    } catch (error) {
      if (error instanceof TransferError && error.code === "undecided") {
        await this.#stay(error, leave);
      } else {
        this.#child.fail(error);
        this.#guest.note({ state: this.#guest.hasEmulator ? "running" : this.#guest.state });
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

  async #finish(leave: () => void): Promise<void> {
    // Its memory stays readable for the child even should the emulator that holds it end.
    const stopWaiting = this.#guest.onExit(async () => void (await this.#child.session.ended));
    try {
      const failure = await this.#child.finish(async () => {
        this.#guest.log.info(
          { transfer: this.#child.entry.transfer, to: this.#params.to },
          "migrated; the guest is removed here",
        );
        leave();
        await this.#services.registry.remove(this.#guest);
      });
      if (failure !== undefined) await this.#stay(failure, leave);
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "a migrated guest could not be removed in full");
    } finally {
      stopWaiting();
    }
  }

  /** The child may run, or have run, and is lost: what the guest was at the switch is kept for its operator to decide. */
  async #stay(error: TransferError, leave: () => void): Promise<void> {
    const { entry } = this.#child;
    this.#child.fail(error);
    entry.commands = {
      cancel: () => Promise.reject(new AgentError("bad-state", `transfer ${entry.transfer} is over`)),
      setSweep: () => {},
      run: () => this.#rollBack(),
    };
    leave();
    await this.#guest.update({
      state: "paused",
      message:
        `stopped as it was when ${this.#params.to} took over; that failed: ${error.message}. ` +
        `To let it run on from there, run transfer ${entry.transfer}; to give it up, remove it`.slice(0, 400),
    });
  }

  async #rollBack(): Promise<void> {
    this.#guest.requireState("let run on", "paused");
    this.#guest.requireIdle();
    const { emulator } = this.#guest.live;
    await connectGuest(emulator, this.#guest.config.network);
    await emulator.resume();
    await this.#guest.update({ state: "running" });
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
