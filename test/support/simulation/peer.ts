import { codeOf, type Bitmap } from "../../../src/base/index.js";
import type { ChildStarted } from "../../../src/transfer/index.js";
import type { ChildAgent, ChildView } from "./child-agent.js";
import type { Life } from "./host.js";
import type { SimulatedNetwork } from "./network.js";

/** How often a child's host is asked about its child while that is out of reach, or may or may not have been told to run; in ms. */
export const ASK_MS = 60;

/** A child's host as one life of the parent's agent commands it. Every command rejects when it is refused or its answer is lost. */
export class SimulatedPeer {
  readonly child: ChildAgent;
  readonly #network: SimulatedNetwork;
  readonly #life: Life;

  constructor(network: SimulatedNetwork, life: Life, child: ChildAgent) {
    this.#network = network;
    this.#life = life;
    this.child = child;
  }

  prepare(): Promise<void> {
    return this.#call((there) => this.child.prepare(there, this.#life), false);
  }

  start(options: { run: boolean; lacking?: Bitmap }): Promise<ChildStarted> {
    return this.#call((there) => this.child.start(there, this.#life, options), true);
  }

  run(options = { answerMayBeLost: false }): Promise<ChildStarted> {
    return this.#call((there) => this.child.run(there, this.#life), options.answerMayBeLost);
  }

  /** Has the child pass on to another one. */
  relayTo(transfer: number): Promise<void> {
    return this.#call((there) => this.child.relayTo(there, this.#life, transfer), false);
  }

  /** Has the child be passed on to by another one. */
  relayFrom(relay: ChildAgent): Promise<void> {
    return this.#call((there) => this.child.relayFrom(there, this.#life, relay), false);
  }

  /** What is known of the child there; undefined when its host does not answer. */
  async show(): Promise<ChildView | "gone" | undefined> {
    try {
      return await this.#call((there) => this.child.show(there, this.#life), false);
    } catch (error) {
      return codeOf(error) === "no-such-transfer" ? "gone" : undefined;
    }
  }

  /** Resolves when the child is gone or was never there. */
  async cancel(options: { answerMayBeLost: boolean }): Promise<void> {
    try {
      await this.#call((there) => this.child.cancel(there, this.#life), options.answerMayBeLost);
    } catch (error) {
      if (codeOf(error) !== "no-such-transfer") throw error;
    }
  }

  #call<T>(serve: (there: Life) => Promise<T>, answerMayBeLost: boolean): Promise<T> {
    return this.#network.call(this.#life, this.child.host, serve, { answerMayBeLost });
  }
}
