import { messageOf } from "../../base/index.js";
import type { ChildOutcome, Params, PauseParts as PausePartsView } from "../../control/index.js";
import { childrenOf } from "../../control/index.js";
import { CopiesFile } from "../../memory/index.js";
import {
  forkGuest,
  Instant,
  TransferError,
  type ForkOutcome,
  type PauseParts,
} from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { networkOfForked } from "../network/translate.js";
import type { Services } from "../services.js";
import { chosenName, NumberedNames } from "./child-names.js";
import { compressFor } from "./compression.js";
import { OutgoingChild } from "./outgoing-child.js";
import { viewOfError } from "./transfer-entry.js";

const MIB = 1024 * 1024;

/**
 * Forks a guest as a client asks for it. Resolves when every child runs, is held, or has failed by itself; memory goes on being sent afterwards.
 * @throws AgentError, TransferError or RemoteError when no child came to be; the parent runs on then.
 */
export async function forkFrom(services: Services, params: Params<"guest.fork">): Promise<ChildOutcome[]> {
  const guest = services.registry.find(params.name);
  guest.requireIdle();
  guest.requireState("forked", "running");
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
  const fork = new OutgoingFork(services, guest, params, urls);
  return fork.run();
}

/** One fork under way: its instant and its children. */
class OutgoingFork {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #params: Params<"guest.fork">;
  readonly #copies: CopiesFile;
  readonly #instant: Instant;
  readonly #children: OutgoingChild[] = [];
  readonly #abort = new AbortController();
  readonly #arrivedUs: number;

  constructor(services: Services, guest: Guest, params: Params<"guest.fork">, urls: readonly string[]) {
    this.#services = services;
    this.#guest = guest;
    this.#params = params;
    this.#arrivedUs = services.clock.nowUs();
    this.#copies = CopiesFile.create(services.paths.copies(guest.id), guest.live.memory.pageCount);
    this.#instant = new Instant({
      memory: guest.live.memory.tracked(),
      copies: this.#copies,
      copyBudgetBytes: services.configuration.limits.copiesMib * MIB,
      tracking: true,
      clock: services.clock,
      log: guest.log,
    });
    const row = new NumberedNames(guest.name);
    for (let index = 0; index < childrenOf(params); index += 1) {
      const host = params.to[index % Math.max(1, params.to.length)] ?? services.configuration.name;
      const name = params.names?.[index];
      this.#children.push(
        new OutgoingChild({
          services,
          guest,
          kind: "fork",
          instant: this.#instant,
          url: urls[index % urls.length] as string,
          host,
          names: name === undefined ? row : chosenName(name),
          network: networkOfForked(guest.config.network, {
            attached: params.network === "attached",
            forwards: params.forwards.map((forward) => ({ ...forward, hostPort: forward.hostPort + index })),
          }),
          verify: params.verify,
          paused: params.paused,
          sweep: params.sweep,
          compress: compressFor(params.compression, urls[index % urls.length] as string),
          rateLimitBytesPerSecond: params.rateLimitBytesPerSecond,
          abort: (reason) => this.#cancelAll(reason),
        }),
      );
    }
  }

  async run(): Promise<ChildOutcome[]> {
    const transfers = this.#children.map(({ entry }) => entry.transfer);
    const hosts = [...new Set(this.#children.map(({ target }) => target.host))].join(", ");
    const vacate = this.#guest.occupyMemory({
      what: `a fork to ${hosts} (transfers ${transfers.join(", ")})`,
      transfers,
    });
    const leave = (): void => {
      vacate();
      this.#copies.remove();
    };
    try {
      const outcome = await forkGuest({
        emulator: this.#guest.live.emulator,
        memory: this.#guest.live.memory.tracked(),
        instant: this.#instant,
        children: this.#children,
        verify: this.#params.verify,
        paused: this.#params.paused,
        clock: this.#services.clock,
        log: this.#guest.log,
        onStep: (step) => this.#children.forEach((child) => child.onStep(step)),
        signal: this.#abort.signal,
      });
      const views = this.#children.map((child, index) => this.#describe(child, outcome, index));
      void this.#finish(leave);
      return views;
    } catch (error) {
      for (const child of this.#children) child.fail(error);
      leave();
      throw error;
    }
  }

  /** Until the instant a fork fails as a whole. */
  #cancelAll(reason: string): void {
    this.#abort.abort();
    for (const child of this.#children) child.session.fail(new TransferError("cancelled", reason));
  }

  /** The guest is free again when the last child needs it no more; so is its memory, should its emulator end before. */
  async #finish(leave: () => void): Promise<void> {
    try {
      await Promise.all(this.#children.map((child) => child.finish()));
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "a fork could not be brought to its end in order");
    } finally {
      leave();
    }
  }

  #describe(child: OutgoingChild, outcome: ForkOutcome, index: number): ChildOutcome {
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
    const { loadUs } = result.started;
    if (this.#params.paused) return { ...common, state: "paused", loadUs };
    const firstInstructionUs = this.#sinceArrival(result.firstInstructionUs);
    child.entry.facts.firstInstructionUs = firstInstructionUs;
    return { ...common, state: "running", loadUs, firstInstructionUs };
  }

  #sinceArrival(firstInstructionUs: number): number {
    return Math.min(firstInstructionUs, this.#services.clock.nowUs() - this.#arrivedUs);
  }
}

/** The parts of a pause by the names the API has for them. */
export function pausePartsView(pause: PauseParts): PausePartsView {
  const { stop, rearm, save, verify, resume, rearmedPages } = pause;
  return { stopUs: stop, rearmUs: rearm, saveUs: save, verifyUs: verify, resumeUs: resume, rearmedPages };
}
