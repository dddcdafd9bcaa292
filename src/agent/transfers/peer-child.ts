import {
  assert,
  codeOf,
  deferred,
  isSame,
  messageOf,
  sleep,
  type Bitmap,
  type Clock,
  type Holder,
  type Log,
} from "../../base/index.js";
import {
  MAX_LACKS_BYTES,
  RemoteError,
  type AnyEvent,
  type ChildReport,
  type ParamsInput,
  type RpcClient,
  type TransferKind,
} from "../../control/index.js";
import { TransferError, type ChildStarted, type ChildTarget } from "../../transfer/index.js";
import type { ChildNames } from "./child-names.js";
import { digestOf } from "./known-heads.js";
import type { Peers } from "./peers.js";

/** An emulator may have to be started, and boot files written. */
const PREPARE_DEADLINE_MS = 60_000;
const START_DEADLINE_MS = 30_000;
const RUN_DEADLINE_MS = 10_000;
const CANCEL_DEADLINE_MS = 15_000;

/** What became of a child: it runs, it is gone and never ran, or it may have run and is kept, with the reason. */
export type Settled = "runs" | "gone" | { kept: string };

/** Answers that say nothing of the child. */
const ASK_AGAIN: ReadonlySet<string> = new Set(["not-ready", "busy", "refused", "forbidden", "draining"]);

/** Answers to what is sent ahead of a child that is not there (any more), where it may be hidden among guests that could not be taken over, or by an agent that takes nothing ahead. */
const NOT_YET: ReadonlySet<string> = new Set(["no-such-transfer", "not-ready", "unknown-method"]);

type PrepareParams = ParamsInput<"peer.prepare">;

/** How often the host of a child whose start was not answered is asked what became of that. */
const ASK_INTERVAL_MS = 500;

/** What a host makes a child of. */
export interface PeerChildMaking {
  /** Everything but the child's name, which may have to be changed when it is taken there. */
  prepare: Omit<PrepareParams, "guest"> & { guest: Omit<PrepareParams["guest"], "name"> };
  names: ChildNames;
}

export interface PeerChildOptions {
  transfer: number;
  kind: TransferKind;
  /** Held before its first instruction until somebody lets it run. */
  paused: boolean;
  peers: Peers;
  url: string;
  host: string;
  /** Absent for a child that an earlier agent had made. */
  making?: PeerChildMaking;
  /** Who the transfer was agreed with, when that was an earlier agent's doing. */
  holder: Holder | undefined;
  /** Called before the host is told of the transfer, with who it is: the child's lanes must be of the same. */
  onAgreed(holder: Holder): void;
  onNamed(name: string): void;
  /** The next word to the host may make the child run; what is thrown here keeps it unsaid. */
  onTelling(): void;
  /** The child runs, or is held where it was to be held. */
  onStarted(): void;
  onEvent(event: AnyEvent): void;
  /** Whether nobody wants the child any more. */
  isOver(): boolean;
  clock: Clock;
  log: Log;
}

/** A future child at a peer, commanded over the control connection. */
export class PeerChild implements ChildTarget {
  readonly transfer: number;
  readonly host: string;
  readonly #options: PeerChildOptions;
  #client: RpcClient | undefined;
  #holder: Holder | undefined;
  #stopListening: () => void = () => {};
  #controlBytes = 0;
  /** Its host was asked to prepare it, or will not be. */
  readonly #asked = deferred<void>();
  #prepared: Promise<void> | undefined;
  #takesAhead = false;
  /** What was sent of the device state before the guest was stopped. */
  #head: Uint8Array | undefined;

  constructor(options: PeerChildOptions) {
    this.#options = options;
    this.transfer = options.transfer;
    this.host = options.host;
    this.#holder = options.holder;
  }

  /** Bytes of device state sent. */
  get controlBytes(): number {
    return this.#controlBytes;
  }

  prepare(): Promise<void> {
    this.#prepared = this.#prepare().finally(() => this.#asked.resolve());
    return this.#prepared;
  }

  async #prepare(): Promise<void> {
    const { making } = this.#options;
    assert(making !== undefined, "a child of an earlier agent is prepared already");
    const client = await this.#connect();
    for (;;) {
      const name = making.names.next();
      try {
        await this.#prepareAs(client, making, name);
        this.#options.onNamed(name);
        return;
      } catch (error) {
        if (!(error instanceof RemoteError) || error.code !== "name-taken" || !making.names.hasMore)
          throw error;
      }
    }
  }

  /** Directly behind the question whether its host can take the child: a host that can has no more to wait for then. */
  async sendAhead(head: Uint8Array): Promise<void> {
    await this.#asked.promise;
    try {
      await this.#giveAhead(head);
    } catch (error) {
      // It was not prepared yet, because its host lacks files or its name is taken there, or its agent is older than that.
      if (!(error instanceof RemoteError) || !NOT_YET.has(error.code)) throw error;
      await this.#prepared;
      if (this.#takesAhead) await this.#giveAhead(head);
    }
  }

  async #giveAhead(head: Uint8Array): Promise<void> {
    const params = { transfer: this.transfer, sha256: digestOf(head) };
    const client = this.#connected();
    const { taken } = await client.call("peer.ahead", params, { deadlineMs: START_DEADLINE_MS });
    if (!taken) {
      this.#controlBytes += head.length;
      await client.call("peer.ahead", { ...params, deviceState: head }, { deadlineMs: START_DEADLINE_MS });
    }
    this.#head = head;
  }

  async start(deviceState: Uint8Array, options: { run: boolean; lacking?: Bitmap }): Promise<ChildStarted> {
    const { kind, paused, onTelling, onStarted } = this.#options;
    // A migration's child runs only when it is told so by another word.
    if (kind === "fork") onTelling();
    const { transfer } = this;
    if (options.lacking !== undefined) await this.#tellLacking(options.lacking);
    const params = { transfer, ...this.#withoutHead(deviceState), run: options.run };
    this.#controlBytes += params.deviceState.length;
    let started: ChildStarted;
    try {
      started = await this.#connected().call("peer.start", params, { deadlineMs: START_DEADLINE_MS });
    } catch (error) {
      if (error instanceof RemoteError || error instanceof TransferError) throw error;
      started = await this.#startedAfterAll(params, error);
    }
    if (options.run || paused) onStarted();
    return started;
  }

  /** Has the child pass on to another one. Rejects when its host is older than that, or as all commands do. */
  async relayTo(to: ParamsInput<"peer.relayTo">["to"]): Promise<void> {
    const { transfer } = this;
    await this.#connected().call("peer.relayTo", { transfer, to }, { deadlineMs: RUN_DEADLINE_MS });
  }

  /** Has the child be passed on to by another one. Rejects as `relayTo`. */
  async relayFrom(from: ParamsInput<"peer.relayFrom">["from"]): Promise<void> {
    const { transfer } = this;
    await this.#connected().call("peer.relayFrom", { transfer, from }, { deadlineMs: RUN_DEADLINE_MS });
  }

  async run(): Promise<ChildStarted> {
    this.#options.onTelling();
    const params = { transfer: this.transfer };
    const started = await this.#connected().call("peer.run", params, { deadlineMs: RUN_DEADLINE_MS });
    this.#options.onStarted();
    return started;
  }

  /** Lets a held child run, over a new connection where the old one was lost. */
  async letRun(): Promise<void> {
    const client = await this.#connect();
    await client.call("peer.run", { transfer: this.transfer }, { deadlineMs: RUN_DEADLINE_MS });
  }

  /** What the child's side knows of the transfer; over a new connection where the old one was lost. */
  async report(): Promise<ChildReport> {
    const client = await this.#connect();
    return client.call("peer.show", { transfer: this.transfer }, { deadlineMs: RUN_DEADLINE_MS });
  }

  /**
   * Finds out what became of a child that may have been told to run: it runs, from now on at the latest, or it is gone, or it may have run and does not run on.
   * Over a new connection where the old one was lost; rejects when the host cannot be asked, or does not know yet.
   */
  async settle(): Promise<Settled> {
    const client = await this.#connect();
    const params = { transfer: this.transfer };
    try {
      await client.call("peer.run", params, { deadlineMs: RUN_DEADLINE_MS });
      this.#options.onStarted();
      return "runs";
    } catch (error) {
      if (!(error instanceof RemoteError) || ASK_AGAIN.has(error.code)) throw error;
      if (error.code === "no-such-transfer") return "gone";
      if (error.code === "has-run") return { kept: error.message };
      // It was never loaded, or cannot be let run there: it is to be gone, as it is when that is heard at once.
      return this.#giveUp(client, error.message);
    }
  }

  async #giveUp(client: RpcClient, why: string): Promise<Settled> {
    const params = { transfer: this.transfer, reason: why.slice(0, 1000) };
    try {
      await client.call("peer.cancel", params, { deadlineMs: CANCEL_DEADLINE_MS });
      return "gone";
    } catch (error) {
      if (codeOf(error) === "no-such-transfer") return "gone";
      if (codeOf(error) === "has-run") return { kept: messageOf(error) };
      if (!(error instanceof RemoteError) || error.code !== "bad-state") throw error;
      return { kept: `${why}; ${error.message}` };
    }
  }

  async cancel(reason: string): Promise<void> {
    // Never prepared there: nothing to end, and a host that cannot be reached need not be asked.
    if (this.#client === undefined && this.#options.making !== undefined) return;
    const client = await this.#connect();
    try {
      await client.call(
        "peer.cancel",
        { transfer: this.transfer, reason: reason.slice(0, 1000) },
        { deadlineMs: CANCEL_DEADLINE_MS },
      );
    } catch (error) {
      if (codeOf(error) === "no-such-transfer") return;
      throw error;
    } finally {
      this.close();
    }
  }

  /** Ends what listens for the peer's events. */
  close(): void {
    this.#stopListening();
  }

  /** What of a device state the child has not got yet. */
  #withoutHead(deviceState: Uint8Array): { deviceState: Uint8Array; ahead?: number } {
    const head = this.#head;
    if (head === undefined) return { deviceState };
    assert(Buffer.compare(head, deviceState.subarray(0, head.length)) === 0, "a state begins as was said");
    return { deviceState: deviceState.subarray(head.length), ahead: head.length };
  }

  /** In pieces that fit into messages, all on their way at once: the guest runs nowhere meanwhile. */
  async #tellLacking(lacking: Bitmap): Promise<void> {
    const pages = lacking.length;
    const calls: Promise<unknown>[] = [];
    for (let firstPage = 0; firstPage < pages; firstPage += MAX_LACKS_BYTES * 8) {
      const count = Math.min(MAX_LACKS_BYTES * 8, pages - firstPage);
      const bits = lacking.bytes(firstPage, count);
      const params = { transfer: this.transfer, firstPage, bits, last: firstPage + count === pages };
      this.#controlBytes += bits.length;
      calls.push(this.#connected().call("peer.lacks", params, { deadlineMs: START_DEADLINE_MS }));
    }
    await Promise.all(calls);
  }

  /** The connection to the host, made anew where it was lost; its events are listened to. */
  async #connect(): Promise<RpcClient> {
    if (this.#client !== undefined && this.#client.end === undefined) return this.#client;
    const { client, identity } = await this.#options.peers.link(this.#options.url);
    this.#requireHolder({ kind: identity.kind, name: identity.name });
    this.#stopListening();
    this.#client = client;
    this.#stopListening = client.onEvent(this.#options.onEvent);
    return client;
  }

  /** Whoever else answers there by now knows nothing of the child, and must not be believed that it is gone. */
  #requireHolder(found: Holder): void {
    if (this.#holder === undefined) {
      this.#options.onAgreed(found);
      this.#holder = found;
      return;
    }
    if (isSame(this.#holder, found)) return;
    const agreed = `the transfer was agreed with ${this.#holder.name}`;
    throw new TransferError("link-lost", `${found.name} answers at ${this.#options.url}, and ${agreed}`);
  }

  /** The start was not answered; its host may have loaded the child, or be another agent by now that found it loaded. */
  async #startedAfterAll(params: ParamsInput<"peer.start">, lost: unknown): Promise<ChildStarted> {
    const { clock, log, isOver } = this.#options;
    const untilUs = clock.nowUs() + START_DEADLINE_MS * 1000;
    log.warn({ transfer: this.transfer, problem: messageOf(lost) }, "the child's start was not answered");
    while (clock.nowUs() < untilUs && !isOver()) {
      await sleep(clock, ASK_INTERVAL_MS);
      try {
        const { phase } = await this.report();
        const client = await this.#connect();
        // The device state never arrived.
        if (phase === "preparing")
          return await client.call("peer.start", params, { deadlineMs: START_DEADLINE_MS });
        if (phase === "starting") continue;
        if (phase !== "paging" && phase !== "complete") throw lost;
        if (!params.run) return { loadUs: 0, runUs: 0 };
        return await client.call("peer.run", { transfer: this.transfer }, { deadlineMs: RUN_DEADLINE_MS });
      } catch (error) {
        if (error === lost || (error instanceof RemoteError && error.code !== "not-ready")) throw error;
      }
    }
    throw lost;
  }

  async #prepareAs(client: RpcClient, { prepare }: PeerChildMaking, name: string): Promise<void> {
    const { peers, url, log } = this.#options;
    const params: PrepareParams = { ...prepare, guest: { ...prepare.guest, name } };
    const answer = client.call("peer.prepare", params, { deadlineMs: PREPARE_DEADLINE_MS });
    this.#asked.resolve();
    const first = await answer;
    this.#takesAhead = first.takesAhead === true;
    if (first.ready) return;
    log.info({ transfer: this.transfer, missing: first.missingFiles }, "the peer lacks boot files");
    for (const sha256 of first.missingFiles) await peers.putFile(url, sha256);
    const second = await client.call("peer.prepare", params, { deadlineMs: PREPARE_DEADLINE_MS });
    this.#takesAhead = second.takesAhead === true;
    if (second.ready) return;
    throw new TransferError(
      "prepare-failed",
      `it asks again for boot files it was given: ${second.missingFiles.join(", ")}`,
    );
  }

  #connected(): RpcClient {
    const end = this.#client?.end;
    if (this.#client !== undefined && end === undefined) return this.#client;
    throw new TransferError(
      "link-lost",
      `the connection to ${this.host} was lost: ${messageOf(end?.message ?? "never made")}`,
    );
  }
}
