import { codeOf, messageOf, type Bitmap, type Log } from "../../base/index.js";
import {
  MAX_LACKS_BYTES,
  RemoteError,
  type AnyEvent,
  type ChildReport,
  type ParamsInput,
  type RpcClient,
} from "../../control/index.js";
import { TransferError, type ChildStarted, type ChildTarget } from "../../transfer/index.js";
import type { ChildNames } from "./child-names.js";
import type { Peers } from "./peers.js";

/** An emulator may have to be started, and boot files written. */
const PREPARE_DEADLINE_MS = 60_000;
const START_DEADLINE_MS = 30_000;
const RUN_DEADLINE_MS = 10_000;
const CANCEL_DEADLINE_MS = 15_000;

type PrepareParams = ParamsInput<"peer.prepare">;

export interface PeerChildOptions {
  peers: Peers;
  url: string;
  host: string;
  /** Everything but the child's name, which may have to be changed when it is taken there. */
  prepare: Omit<PrepareParams, "guest"> & { guest: Omit<PrepareParams["guest"], "name"> };
  names: ChildNames;
  onNamed(name: string): void;
  /** The child runs, or is held where it was to be held. */
  onStarted(): void;
  onEvent(event: AnyEvent): void;
  log: Log;
}

/** A future child at a peer, commanded over the control connection. */
export class PeerChild implements ChildTarget {
  readonly transfer: number;
  readonly host: string;
  readonly #options: PeerChildOptions;
  #client: RpcClient | undefined;
  #stopListening: () => void = () => {};
  #controlBytes = 0;

  constructor(options: PeerChildOptions) {
    this.#options = options;
    this.transfer = options.prepare.transfer;
    this.host = options.host;
  }

  /** Bytes of device state sent. */
  get controlBytes(): number {
    return this.#controlBytes;
  }

  async prepare(): Promise<void> {
    const { peers, url, names } = this.#options;
    this.#client = await peers.connect(url);
    this.#stopListening = this.#client.onEvent(this.#options.onEvent);
    for (;;) {
      const name = names.next();
      try {
        await this.#prepareAs(this.#client, name);
        this.#options.onNamed(name);
        return;
      } catch (error) {
        if (!(error instanceof RemoteError) || error.code !== "name-taken" || !names.hasMore) throw error;
      }
    }
  }

  async start(deviceState: Uint8Array, options: { run: boolean; lacking?: Bitmap }): Promise<ChildStarted> {
    this.#controlBytes += deviceState.length;
    const { transfer } = this;
    if (options.lacking !== undefined) await this.#tellLacking(options.lacking);
    const params = { transfer, deviceState, run: options.run };
    const started = await this.#connected().call("peer.start", params, { deadlineMs: START_DEADLINE_MS });
    if (options.run || this.#options.prepare.paused === true) this.#options.onStarted();
    return started;
  }

  async run(): Promise<ChildStarted> {
    const params = { transfer: this.transfer };
    const started = await this.#connected().call("peer.run", params, { deadlineMs: RUN_DEADLINE_MS });
    this.#options.onStarted();
    return started;
  }

  /** What the child's side knows of the transfer; over a new connection where the old one was lost. */
  async report(): Promise<ChildReport> {
    const client = await this.#options.peers.connect(this.#options.url);
    return client.call("peer.show", { transfer: this.transfer }, { deadlineMs: RUN_DEADLINE_MS });
  }

  /**
   * Finds out what became of a child that may have been told to run: it runs, from now on at the latest, or it is gone. Over a new connection where the old
   * one was lost; rejects when the host cannot be asked.
   */
  async settle(): Promise<"runs" | "gone"> {
    const client = await this.#options.peers.connect(this.#options.url);
    const params = { transfer: this.transfer };
    try {
      await client.call("peer.run", params, { deadlineMs: RUN_DEADLINE_MS });
      this.#options.onStarted();
      return "runs";
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      if (error.code === "bad-state") {
        await client.call(
          "peer.cancel",
          { ...params, reason: "it was never loaded" },
          { deadlineMs: CANCEL_DEADLINE_MS },
        );
        return "gone";
      }
      if (error.code === "no-such-transfer") return "gone";
      throw error;
    }
  }

  async cancel(reason: string): Promise<void> {
    // Never prepared there: nothing to end, and a host that cannot be reached need not be asked.
    if (this.#client === undefined) return;
    const client =
      this.#client.end === undefined ? this.#client : await this.#options.peers.connect(this.#options.url);
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

  async #prepareAs(client: RpcClient, name: string): Promise<void> {
    const { prepare, peers, url, log } = this.#options;
    const params: PrepareParams = { ...prepare, guest: { ...prepare.guest, name } };
    const first = await client.call("peer.prepare", params, { deadlineMs: PREPARE_DEADLINE_MS });
    if (first.ready) return;
    log.info({ transfer: this.transfer, missing: first.missingFiles }, "the peer lacks boot files");
    for (const sha256 of first.missingFiles) await peers.putFile(url, sha256);
    const second = await client.call("peer.prepare", params, { deadlineMs: PREPARE_DEADLINE_MS });
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
