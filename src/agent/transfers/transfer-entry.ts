import { assert, codeOf, messageOf, type Clock } from "../../base/index.js";
import {
  isFinal,
  MAX_MESSAGE_CHARACTERS,
  type ErrorView,
  type PauseParts,
  type StartMarks,
  type TransferKind,
  type TransferPhase,
  type TransferRole,
  type TransferView,
} from "../../control/index.js";
import { NOTHING_MOVED, type TransferError, type TransferProgress } from "../../transfer/index.js";
import type { SteerChange } from "./steering.js";

/** What one may do to a transfer. Each rejects with a coded error where it makes no sense. */
export interface TransferCommands {
  cancel(reason: string): Promise<void>;
  steer(change: SteerChange): void;
  run(): Promise<void>;
}

/** What is known of a transfer, besides what its machine counts. */
export interface TransferFacts {
  pauseUs?: number;
  pauseParts?: PauseParts;
  firstInstructionUs?: number;
  startMarks?: StartMarks;
  precopy?: NonNullable<TransferView["precopy"]>;
  relay?: NonNullable<TransferView["relay"]>;
  copies?: { pages: number; budgetPages: number };
  faults?: NonNullable<TransferView["faults"]>;
  duplicates?: number;
  verify?: { checked: number; mismatches: number };
  disks?: NonNullable<TransferView["disks"]>;
  shared?: number;
  sweep?: "on" | "held";
  rateLimitBytesPerSecond?: number;
  priority?: NonNullable<TransferView["priority"]>;
  message?: string;
}

export interface TransferEntryOptions {
  transfer: number;
  kind: TransferKind;
  role: TransferRole;
  guest: string;
  peerGuest: string;
  host: string;
  pageCount: number;
  /** Where an earlier agent has begun it. */
  startedAtMs?: number;
  clock: Clock;
}

/** One side of one transfer, as clients see it: its phase, what is known of it, and the commands it takes. */
export class TransferEntry {
  readonly transfer: number;
  readonly kind: TransferKind;
  readonly role: TransferRole;
  readonly host: string;
  readonly facts: TransferFacts = {};
  peerGuest: string;
  readonly #guest: string;
  readonly #clock: Clock;
  readonly #startedAtMs: number;
  readonly #startedUs: number;
  #phase: TransferPhase = "preparing";
  #elapsedMs: number | undefined;
  #error: ErrorView | undefined;
  #progress: () => TransferProgress;
  #controlBytes = 0;
  /** Ends a migration from the parent's side, and resolves when its guest is kept, stopped, with nothing under way. */
  abandon: ((error: TransferError) => Promise<void>) | undefined;
  /** Since when the other side was out of reach when the transfer ended, or when it ended, in ms since 1970. */
  heardAtMs: number | undefined;
  commands: TransferCommands | undefined;
  /** Set by the book: tells listeners of a change. */
  onChange: () => void = () => {};

  constructor(options: TransferEntryOptions) {
    this.transfer = options.transfer;
    this.kind = options.kind;
    this.role = options.role;
    this.host = options.host;
    this.peerGuest = options.peerGuest;
    this.#guest = options.guest;
    this.#clock = options.clock;
    const nowMs = options.clock.wallMs();
    this.#startedAtMs = options.startedAtMs ?? nowMs;
    this.#startedUs = options.clock.nowUs() - Math.max(0, nowMs - this.#startedAtMs) * 1000;
    this.#progress = () => ({ ...NOTHING_MOVED, total: options.pageCount, received: 0, linked: false });
  }

  get phase(): TransferPhase {
    return this.#phase;
  }

  get guest(): string {
    return this.#guest;
  }

  get over(): boolean {
    return isFinal(this.#phase);
  }

  /** Where the counts come from while the transfer runs. */
  countFrom(progress: () => TransferProgress): void {
    this.#progress = progress;
  }

  addControlBytes(bytes: number): void {
    this.#controlBytes += bytes;
  }

  /** Notes a new phase, with what there is to say about it. A final phase is the last. */
  enter(phase: TransferPhase, why: { message?: string; error?: unknown } = {}): void {
    assert(!this.over, `transfer ${this.transfer} is over (${this.#phase}) and cannot be ${phase}`);
    if (phase === this.#phase && why.message === undefined) return;
    this.#phase = phase;
    if (why.message !== undefined) this.facts.message = why.message;
    if (why.error !== undefined) this.#error = viewOfError(why.error);
    if (isFinal(phase)) {
      this.heardAtMs = this.lastHeardMs();
      const last = this.#progress();
      this.#progress = () => last;
      this.#elapsedMs = this.#elapsed();
    }
    this.onChange();
  }

  /** When the other side was last heard of, in ms since 1970. */
  lastHeardMs(): number {
    if (this.heardAtMs !== undefined) return this.heardAtMs;
    const { link } = this.view();
    return link?.state === "reconnecting" ? link.sinceMs : this.#clock.wallMs();
  }

  view(): TransferView {
    const progress = this.#progress();
    const { message, faults, duplicates, ...facts } = this.facts;
    const ownFaults = this.role === "child" ? progress.faults : faults;
    return {
      id: this.transfer,
      kind: this.kind,
      role: this.role,
      guest: this.#guest,
      peerGuest: this.peerGuest,
      host: this.host,
      phase: this.#phase,
      pages: {
        total: progress.total,
        received: progress.received,
        fault: progress.fault,
        push: progress.push,
        sweep: progress.sweep,
        zero: progress.zero,
        duplicates: duplicates ?? progress.duplicates,
      },
      bytes: { control: this.#controlBytes, urgent: progress.urgentBytes, bulk: progress.bulkBytes },
      ...facts,
      ...(progress.compression === undefined ? {} : { compression: progress.compression }),
      ...(progress.ahead === undefined ? {} : { workingSet: progress.ahead }),
      reconnects: progress.reconnects,
      ...this.#link(progress),
      ...this.#relay(progress),
      ...(ownFaults === undefined ? {} : { faults: ownFaults }),
      startedAtMs: this.#startedAtMs,
      elapsedMs: this.#elapsedMs ?? this.#elapsed(),
      ...(message === undefined ? {} : { message: message.slice(0, MAX_MESSAGE_CHARACTERS) }),
      ...(this.#error === undefined ? {} : { error: this.#error }),
    };
  }

  #link({ linked, lost }: TransferProgress): Pick<TransferView, "link"> {
    if (this.over) return {};
    if (lost === undefined) return linked ? { link: { state: "linked" } } : {};
    const sinceMs = this.#clock.wallMs() - (this.#clock.nowUs() - lost.sinceUs) / 1000;
    const why = lost.why.slice(0, MAX_MESSAGE_CHARACTERS);
    return { link: { state: "reconnecting", sinceMs: Math.max(0, sinceMs), why } };
  }

  #relay({ relay, holding }: TransferProgress): Pick<TransferView, "relay"> {
    const { from } = this.facts.relay ?? {};
    if (this.role === "parent")
      return from === undefined ? {} : { relay: { from, holding: holding === true && !this.over } };
    if (relay === undefined) return {};
    const { fed, pages, branches: to, passedOn, dropped } = relay;
    return pages + to + passedOn + dropped === 0 && !fed
      ? {}
      : { relay: { fed, pages, to, passedOn, dropped } };
  }

  #elapsed(): number {
    return (this.#clock.nowUs() - this.#startedUs) / 1000;
  }
}

/** Any failure as messages carry it. */
export function viewOfError(thrown: unknown): ErrorView {
  return { code: codeOf(thrown).slice(0, 64), message: messageOf(thrown).slice(0, MAX_MESSAGE_CHARACTERS) };
}
