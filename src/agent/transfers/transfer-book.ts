import type { Clock, Timer } from "../../base/index.js";
import type { TransferRole } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { EventHub } from "../events.js";
import type { TransferEntry } from "./transfer-entry.js";

/** Transfers that are over and still listed; older ones are forgotten. */
const MAX_PAST_TRANSFERS = 100;

/** How often the progress of running transfers is told. */
const PROGRESS_INTERVAL_MS = 200;

/** Every transfer of this agent that runs, and the latest that are over. */
export class TransferBook {
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #entries: TransferEntry[] = [];
  readonly #listeners: (() => void)[] = [];
  readonly #detachers = new Set<() => void>();
  #ticker: Timer | undefined;

  constructor(options: { events: EventHub; clock: Clock }) {
    this.#events = options.events;
    this.#clock = options.clock;
  }

  /** Oldest first. */
  list(options: { active: boolean }): TransferEntry[] {
    return options.active ? this.active : [...this.#entries];
  }

  get active(): TransferEntry[] {
    return this.#entries.filter((entry) => !entry.over);
  }

  /** Calls `listener` whenever a transfer begins, before anything else of it is done. */
  onAdd(listener: () => void): void {
    this.#listeners.push(listener);
  }

  add(entry: TransferEntry): void {
    for (const listener of this.#listeners) listener();
    entry.onChange = () => this.#events.emit("transfer", { transfer: entry.view() });
    this.#entries.push(entry);
    this.#forgetOld();
    entry.onChange();
    this.#tick();
  }

  /** Takes an entry out as if it had never been. */
  drop(entry: TransferEntry): void {
    const index = this.#entries.indexOf(entry);
    if (index !== -1) this.#entries.splice(index, 1);
  }

  /**
   * Without a role the parent's side is meant, where this agent has both.
   * @throws AgentError `no-such-transfer`.
   */
  find(transfer: number, role?: TransferRole): TransferEntry {
    const found = this.#entries.filter(
      (entry) => entry.transfer === transfer && (role === undefined || entry.role === role),
    );
    const entry = found.find((candidate) => candidate.role === "parent") ?? found[0];
    if (entry !== undefined) return entry;
    throw noSuchTransfer(transfer);
  }

  /** The last transfer that took the guest of this name away, for those who still look for it here. */
  lastMigrationOf(guest: string): TransferEntry | undefined {
    return this.#entries.findLast(
      (entry) =>
        entry.guest === guest &&
        entry.role === "parent" &&
        entry.kind === "migrate" &&
        entry.phase === "complete",
    );
  }

  /** Calls `detach` when the agent ends before the transfer does, to leave it to the next agent. Returns what takes that back. */
  onDetach(detach: () => void): () => void {
    this.#detachers.add(detach);
    return () => this.#detachers.delete(detach);
  }

  /** Lets go of every transfer that runs. */
  detachAll(): void {
    for (const detach of this.#detachers) detach();
    this.#detachers.clear();
  }

  close(): void {
    this.#ticker?.cancel();
    this.#ticker = undefined;
  }

  #tick(): void {
    this.#ticker ??= this.#clock.after(PROGRESS_INTERVAL_MS, () => {
      this.#ticker = undefined;
      const active = this.active;
      for (const entry of active) entry.onChange();
      if (active.length > 0) this.#tick();
    });
  }

  #forgetOld(): void {
    const past = this.#entries.filter((entry) => entry.over);
    for (const entry of past.slice(0, Math.max(0, past.length - MAX_PAST_TRANSFERS))) this.drop(entry);
  }
}

/** Also what is said to a tenant of another one's transfer. */
export function noSuchTransfer(transfer: number): AgentError {
  return new AgentError(
    "no-such-transfer",
    `this agent knows no transfer ${transfer}; transfers lists those it knows`,
  );
}
