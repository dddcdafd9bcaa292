import type { GuestView, TransferView } from "../control/index.js";

/** What the agent tells whoever listens: its sessions send it on, its own parts react to it. */
export interface AgentEvents {
  guest: { change: "added" | "changed" | "removed"; guest: GuestView };
  transfer: { transfer: TransferView };
}

type Listener<Topic extends keyof AgentEvents> = (data: AgentEvents[Topic]) => void;

/** Fans events out. Listeners are called in order of their registration, at once. */
export class EventHub {
  readonly #listeners: { [Topic in keyof AgentEvents]: Set<Listener<Topic>> } = {
    guest: new Set(),
    transfer: new Set(),
  };

  /** Calls `listener` for every event of the topic from now on. Returns what ends that. */
  on<Topic extends keyof AgentEvents>(topic: Topic, listener: Listener<Topic>): () => void {
    this.#listeners[topic].add(listener);
    return () => this.#listeners[topic].delete(listener);
  }

  emit<Topic extends keyof AgentEvents>(topic: Topic, data: AgentEvents[Topic]): void {
    for (const listener of [...this.#listeners[topic]]) listener(data);
  }
}
