import { randomBytes } from "node:crypto";
import { deferred, messageOf, withDeadline } from "../../base/index.js";
import type { AnyEvent, ChildReport, ParamsInput, TransferKind } from "../../control/index.js";
import {
  ParentSession,
  PrecopySource,
  TransferError,
  type ForkChild,
  type FrameLane,
  type Instant,
  type PageLane,
  type ParentStep,
} from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { NetworkForPeer } from "../network/translate.js";
import type { Services } from "../services.js";
import type { ChildNames } from "./child-names.js";
import { PeerChild } from "./peer-child.js";
import { TransferEntry } from "./transfer-entry.js";

const TOKEN_BYTES = 24;

/** A fork's parent whose child is out of reach runs on, but may come to wait when its copies are used up; hence not for ever. */
const FORK_LINK_DEADLINE_MS = 30_000;

/** How long the child's last word may be behind its last page, before it is asked for. */
const REPORT_DEADLINE_MS = 500;

export interface OutgoingChildOptions {
  services: Services;
  guest: Guest;
  kind: TransferKind;
  instant: Instant;
  url: string;
  host: string;
  names: ChildNames;
  network: NetworkForPeer;
  verify: boolean;
  /** Copies memory ahead, for a migration that is to. */
  precopy?: boolean;
  paused: boolean;
  sweep: "on" | "held";
  compress: boolean;
  rateLimitBytesPerSecond: number | undefined;
  /** Cancels the whole fork or migration while it has no child that runs. */
  abort: (reason: string) => void;
}

/** The parent's side of one child: its entry in the book, its session, the way in for its page lanes, and its host. */
export class OutgoingChild implements ForkChild {
  readonly entry: TransferEntry;
  readonly session: ParentSession;
  readonly target: PeerChild;
  readonly precopy: PrecopySource | undefined;
  readonly #options: OutgoingChildOptions;
  readonly #closeRoute: () => void;
  #step: ParentStep = "preparing";
  #cancelled: string | undefined;
  readonly #reported = deferred<void>();

  constructor(options: OutgoingChildOptions) {
    const { services, guest, instant } = options;
    this.#options = options;
    const transfer = newTransferNumber(services);
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    const { clock } = services;
    const log = guest.log.child({ transfer });
    this.entry = new TransferEntry({
      transfer,
      kind: options.kind,
      role: "parent",
      guest: guest.name,
      peerGuest: guest.name,
      host: options.host,
      pageCount: instant.pageCount,
      clock,
    });
    this.session = new ParentSession({
      transfer,
      instant,
      clock,
      log,
      compress: options.compress,
      // Until the child runs, nothing may stand in the way of the pages its loading waits for.
      sweep: false,
      ...(options.rateLimitBytesPerSecond === undefined
        ? {}
        : { rateBytesPerSecond: options.rateLimitBytesPerSecond }),
      ...(options.kind === "fork" ? { linkDeadlineMs: FORK_LINK_DEADLINE_MS } : {}),
    });
    if (options.precopy === true) {
      this.precopy = new PrecopySource({
        transfer,
        memory: guest.live.memory.tracked(),
        clock,
        log,
        compress: options.compress,
        ...(options.rateLimitBytesPerSecond === undefined
          ? {}
          : { rateBytesPerSecond: options.rateLimitBytesPerSecond }),
      });
    }
    this.target = new PeerChild({
      peers: services.peers,
      url: options.url,
      host: options.host,
      prepare: { ...prepareParams(options), transfer, token },
      names: options.names,
      onStarted: () => this.session.setSweep(this.entry.facts.sweep === "on"),
      onNamed: (name) => (this.entry.peerGuest = name),
      onEvent: (event) => this.#onEvent(event),
      log,
    });
    this.#closeRoute = services.routes.open(transfer, token, {
      acceptLane: (lane, epoch, connection, offers) => this.#acceptLane(lane, epoch, connection, offers),
    });
    this.entry.facts.sweep = options.sweep;
    this.entry.commands = {
      cancel: (reason) => this.#cancel(reason),
      setSweep: (mode) => this.#setSweep(mode),
      run: () => this.#run(),
    };
    this.entry.countFrom(() => this.#count());
    services.book.add(this.entry);
  }

  #acceptLane(
    lane: PageLane | "precopy",
    epoch: number,
    connection: FrameLane,
    offers: { lz4: boolean },
  ): void {
    if (lane !== "precopy") return this.session.acceptLane(lane, epoch, connection, offers);
    if (this.precopy === undefined)
      throw new TransferError("peer-protocol", "nothing is copied ahead in this transfer");
    this.precopy.acceptLane(epoch, connection, offers);
  }

  /** Whether a user ended it. */
  get cancelled(): boolean {
    return this.#cancelled !== undefined;
  }

  onStep(step: ParentStep): void {
    this.#step = step;
    if (!this.entry.over) this.entry.enter(step);
  }

  /** It never came to a child that runs, or its child did not start. */
  fail(error: unknown): void {
    if (!this.entry.over) this.entry.enter(this.cancelled ? "cancelled" : "failed", { error });
    this.#close();
  }

  /**
   * Waits until the child has all its memory, or never will. Returns the failure.
   * @param atEnd what is to be done before anybody is told of a good end.
   */
  async finish(atEnd: () => Promise<void> = async () => {}): Promise<TransferError | undefined> {
    const end = await this.session.ended;
    if (end.phase !== "failed") {
      await this.#lastReport();
      const error = this.#verifyError();
      await atEnd();
      if (!this.entry.over)
        this.entry.enter(error === undefined ? "complete" : "failed", error === undefined ? {} : { error });
      this.#close();
      return undefined;
    }
    if (!this.entry.over) {
      this.entry.enter(this.cancelled ? "cancelled" : "failed", {
        error: end.error,
        message: end.error.message,
      });
    }
    this.#close();
    return end.error;
  }

  /** The child's last word comes over another connection than its last page, or has to be asked for where that was lost. */
  async #lastReport(): Promise<void> {
    const { clock } = this.#options.services;
    const awaited = "the child's last report";
    try {
      await withDeadline(clock, REPORT_DEADLINE_MS, awaited, this.#reported.promise);
    } catch {
      try {
        this.#note(await this.target.report());
      } catch (error) {
        this.#options.guest.log.warn(
          { problem: messageOf(error) },
          "the child's host does not tell how its child fared",
        );
      }
    }
  }

  #close(): void {
    this.#closeRoute();
    this.target.close();
  }

  #verifyError(): AgentError | undefined {
    if (!this.#options.verify) return undefined;
    const { verify } = this.entry.facts;
    if (verify === undefined)
      return new AgentError("transfer-failed", "the child's host did not tell the result of the comparison");
    if (verify.mismatches === 0) return undefined;
    return new AgentError(
      "transfer-failed",
      `${verify.mismatches} of ${verify.checked} pages differ from the parent's at the instant`,
    );
  }

  async #cancel(reason: string): Promise<void> {
    if (this.#step !== "paging") {
      this.#cancelled = reason;
      this.#options.abort(reason);
      return;
    }
    if (this.#options.kind === "migrate") {
      this.#giveUp(reason);
      return;
    }
    this.#cancelled = reason;
    this.session.fail(new TransferError("cancelled", reason));
    await this.target.cancel(reason);
  }

  /** A migrated guest that is out of reach may be given up, for its parent to be let run on; one that is there may not. */
  #giveUp(reason: string): void {
    const { guest, host } = this.entry;
    if (this.session.phase.phase !== "waiting-for-child") {
      throw new TransferError(
        "already-switched",
        `guest ${guest} runs on ${host} already; a migration can only be cancelled before that`,
      );
    }
    this.#cancelled = reason;
    this.session.fail(new TransferError("link-lost", `${host} is out of reach and was given up: ${reason}`));
  }

  #setSweep(mode: "on" | "held"): void {
    if (this.#step === "paging") this.session.setSweep(mode === "on");
    this.entry.facts.sweep = mode;
    this.entry.onChange();
  }

  async #run(): Promise<void> {
    await this.target.run();
  }

  #count() {
    const { copies } = this.#options.instant;
    this.entry.facts.copies = { pages: copies.pages, budgetPages: copies.budgetPages };
    const progress = this.session.progress();
    if (this.precopy === undefined) return progress;
    const { round, sent, due, bytes, linked } = this.precopy.progress();
    this.entry.facts.precopy = { round, sent, due };
    progress.bulkBytes += bytes;
    return this.#step === "precopying" ? { ...progress, received: progress.total - due, linked } : progress;
  }

  #onEvent(event: AnyEvent): void {
    if (event.event === "peerTransfer" && event.data.transfer === this.entry.transfer) this.#note(event.data);
  }

  #note(report: ChildReport): void {
    const { verify, faults, duplicates } = report;
    if (verify !== undefined) this.entry.facts.verify = verify;
    if (faults !== undefined) this.entry.facts.faults = faults;
    if (duplicates !== undefined) this.entry.facts.duplicates = duplicates;
    if (report.phase === "complete") this.#reported.resolve();
  }
}

function prepareParams(options: OutgoingChildOptions): Omit<
  ParamsInput<"peer.prepare">,
  "guest" | "transfer" | "token"
> & {
  guest: Omit<ParamsInput<"peer.prepare">["guest"], "name">;
} {
  const { services, guest } = options;
  return {
    kind: options.kind,
    guest: peerGuestOf(guest, options.network, options.kind),
    parent: { guest: guest.name, host: services.configuration.name },
    emulatorVersion: guest.live.emulator.version,
    parentUrl: services.ownUrl(),
    pageCount: options.instant.pageCount,
    verify: options.verify,
    paused: options.paused,
    precopy: options.precopy === true,
  };
}

/** A guest as another host must know it to make an emulator for it; all but the child's name. */
export function peerGuestOf(
  guest: Guest,
  network: NetworkForPeer,
  kind: TransferKind,
): Omit<ParamsInput<"peer.prepare">["guest"], "name"> {
  const { config, record } = guest;
  const bootFile = ({ sha256, sizeBytes }: { sha256: string; sizeBytes: number }) => ({ sha256, sizeBytes });
  return {
    architecture: config.architecture,
    machine: config.machine,
    memoryBytes: config.memoryBytes,
    cpus: config.cpus,
    append: config.append,
    kernel: bootFile(record.boot.kernel),
    ...(record.boot.initrd === undefined ? {} : { initrd: bootFile(record.boot.initrd) }),
    ...network,
    // A migrated guest is who it was; a fork's child is somebody else, and must find that out.
    ...(kind === "migrate" ? { id: guest.id } : {}),
    ...(kind === "migrate" && config.vmgenid !== undefined ? { vmgenid: config.vmgenid } : {}),
  };
}

/** A number no other transfer of this agent has, and hardly one of any other. */
function newTransferNumber(services: Services): number {
  for (;;) {
    const number = randomBytes(4).readUInt32BE();
    if (number !== 0 && !services.routes.has(number)) return number;
  }
}
