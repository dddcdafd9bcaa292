import { MAX_CHILDREN, type Params } from "../../control/index.js";
import type { ChildMachine } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { dialLane } from "./dial-lane.js";

type RelayTo = Params<"peer.relayTo">["to"];
type RelayFrom = Params<"peer.relayFrom">["from"];

/** The lanes between a child of this host and other children of its instant. The machine owns them and ends them; what lets them in ends with them. */
export class ChildRelays {
  readonly #services: Services;
  readonly #machine: ChildMachine;
  readonly #transfer: number;

  constructor(services: Services, machine: ChildMachine, transfer: number) {
    this.#services = services;
    this.#machine = machine;
    this.#transfer = transfer;
  }

  /**
   * Lets another child dial, and passes on to it from now on.
   * @throws AgentError `busy` when it passes on to as many as a fork has already.
   */
  passTo({ transfer, token, holder }: RelayTo): void {
    if (this.#machine.relay.progress().branches >= MAX_CHILDREN)
      throw new AgentError("busy", `this child passes on to ${MAX_CHILDREN} others already`);
    let isOver = false;
    let closeRoute = (): void => {};
    const branch = this.#machine.relay.passTo(transfer, () => {
      isOver = true;
      closeRoute();
    });
    if (isOver) return;
    closeRoute = this.#services.relays.open(transfer, token, {
      holder: () => holder,
      acceptLane: (epoch, lane, offers) => branch.acceptLane(epoch, lane, offers),
    });
  }

  /** Dials the child that passes on to this one. */
  feedFrom({ url, token, holder }: RelayFrom): void {
    const lane = { url, token, holder, purpose: "relay" as const, transfer: this.#transfer };
    this.#machine.relay.feedFrom((epoch) => dialLane(this.#services, { ...lane, epoch }));
  }
}
