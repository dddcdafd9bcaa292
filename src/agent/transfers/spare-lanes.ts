import { messageOf, type Clock, type Holder, type Log, type Timer } from "../../base/index.js";
import { RemoteError } from "../../control/index.js";
import type { Connection } from "../../lane/index.js";
import type { LaneEnd, PageLane } from "../../transfer/index.js";
import type { UrgentLane } from "../faults/fault-thread.js";
import type { LaneRoutes, LaneTaker } from "./lane-routes.js";
import type { Link, Peers } from "./peers.js";

/** Most transfers to come that a host has lanes here for; each has two. */
export const MAX_SPARES_PER_PEER = 16;
/** Those that were taken are replaced so much later: the child that has them starts just now. */
const REFILL_DELAY_MS = 1000;
const SPARE_DEADLINE_MS = 5000;

const UNUSED: LaneEnd = { code: "closed", message: "no transfer needs it any more", fatal: true };

interface ParkedLane {
  lane: Connection | UrgentLane;
  epoch: number;
  offers: { lz4: boolean };
}

/** What a transfer to come is known by, and its page lanes, which its child's host has dialled already. */
export class SpareTransfer implements LaneTaker {
  readonly transfer: number;
  readonly token: string;
  /** Who has dialled them. */
  readonly agreedWith: Holder;
  readonly #lanes = new Map<PageLane, ParkedLane>();
  readonly #onLost: () => void;
  #closeRoute: () => void = () => {};
  #taker: LaneTaker | undefined;

  constructor(options: { transfer: number; token: string; agreedWith: Holder; onLost: () => void }) {
    this.transfer = options.transfer;
    this.token = options.token;
    this.agreedWith = options.agreedWith;
    this.#onLost = options.onLost;
  }

  /** Lets its lanes in. */
  open(routes: LaneRoutes): void {
    this.#closeRoute = routes.open(this.transfer, this.token, this);
  }

  /** Whether both lanes wait here. */
  get isWhole(): boolean {
    return this.#lanes.size === 2;
  }

  holder(): Holder {
    return this.agreedWith;
  }

  acceptLane(
    name: PageLane | "precopy",
    epoch: number,
    lane: Connection | UrgentLane,
    offers: { lz4: boolean },
  ): void {
    if (name === "precopy" || this.#lanes.has(name)) return lane.close(UNUSED);
    this.#lanes.set(name, { lane, epoch, offers });
    lane.park(() => this.#onLost());
  }

  /** Of the guest whose transfer it has become: it is asked for when that takes its urgent lane up. */
  shareFile(): number | undefined {
    return this.#taker?.shareFile();
  }

  /** Its transfer begins, and has let lanes in itself: gives it those that wait. */
  handTo(taker: LaneTaker): void {
    this.#taker = taker;
    this.#closeRoute();
    for (const [name, { lane, epoch, offers }] of this.#lanes) taker.acceptLane(name, epoch, lane, offers);
    this.#lanes.clear();
  }

  /** Nobody needs it. May be called twice. */
  close(): void {
    this.#closeRoute();
    for (const { lane } of this.#lanes.values()) lane.close(UNUSED);
    this.#lanes.clear();
  }
}

/** The spare transfers of one host. */
interface Shelf {
  url: string;
  /** How many each guest may need at once, by its id. */
  readonly wanted: Map<string, number>;
  readonly spares: Set<SpareTransfer>;
  /** The connection they were agreed over: it says who the host is. */
  link: Link | undefined;
  filling: Promise<void> | undefined;
  refill: Timer | undefined;
  idle: Timer | undefined;
}

/**
 * Keeps page lanes ready for children at hosts where emulators are kept warm for them, so that a fork has no connection to make. Such lanes are known by the number and the
 * token of a transfer to come. They go when nobody has used them for as long as an idle emulator is kept, and when the connection goes over which they were agreed.
 */
export class SpareLanes {
  readonly #routes: LaneRoutes;
  readonly #peers: Peers;
  readonly #identify: () => { transfer: number; token: string };
  readonly #idleMs: number;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #shelves = new Map<string, Shelf>();
  #closed = false;

  constructor(options: {
    routes: LaneRoutes;
    peers: Peers;
    /** A number and a token that no transfer has. */
    identify: () => { transfer: number; token: string };
    idleMs: number;
    clock: Clock;
    log: Log;
  }) {
    this.#routes = options.routes;
    this.#peers = options.peers;
    this.#identify = options.identify;
    this.#idleMs = options.idleMs;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Keeps lanes for `count` children of a guest ready at a host, 0 for none. Resolves when they are there, or cannot be: forks then dial. */
  async want(url: string, guestId: string, count: number): Promise<void> {
    if (this.#closed || this.#peers.isSelf(url)) return;
    const shelf = this.#shelfOf(url);
    if (count > 0) shelf.wanted.set(guestId, count);
    else shelf.wanted.delete(guestId);
    for (const spare of [...shelf.spares].slice(targetOf(shelf))) this.#drop(shelf, spare);
    this.#watchIdle(shelf);
    await this.#fill(shelf);
  }

  /** Takes a spare transfer of a host, if there is one, and has another made in its place. */
  take(url: string): SpareTransfer | undefined {
    const shelf = this.#shelves.get(url);
    const spare = shelf && [...shelf.spares].find(({ isWhole }) => isWhole);
    if (shelf === undefined || spare === undefined) return undefined;
    shelf.spares.delete(spare);
    this.#watchIdle(shelf);
    shelf.refill?.cancel();
    shelf.refill = this.#clock.after(REFILL_DELAY_MS, () => void this.#fill(shelf));
    return spare;
  }

  /** Ends all of them. */
  close(): void {
    this.#closed = true;
    for (const shelf of this.#shelves.values()) this.#clear(shelf);
  }

  #shelfOf(url: string): Shelf {
    const shelf: Shelf = this.#shelves.get(url) ?? {
      url,
      wanted: new Map(),
      spares: new Set(),
      link: undefined,
      filling: undefined,
      refill: undefined,
      idle: undefined,
    };
    this.#shelves.set(url, shelf);
    return shelf;
  }

  /** One filling of a shelf at a time. */
  async #fill(shelf: Shelf): Promise<void> {
    while (shelf.filling !== undefined) await shelf.filling;
    shelf.filling = this.#makeMissing(shelf).finally(() => (shelf.filling = undefined));
    await shelf.filling;
  }

  /** Never rejects: without spare lanes forks are slower, and nothing else. */
  async #makeMissing(shelf: Shelf): Promise<void> {
    try {
      while (!this.#closed && shelf.spares.size < targetOf(shelf)) await this.#makeOne(shelf);
    } catch (error) {
      // An agent that is older than spare lanes says that it knows no such method.
      const isOld = error instanceof RemoteError && error.code === "unknown-method";
      const said = { host: shelf.url, problem: messageOf(error) };
      this.#log[isOld ? "debug" : "info"](said, "no page lanes are kept ready");
    }
  }

  async #makeOne(shelf: Shelf): Promise<void> {
    const link = await this.#peers.link(shelf.url);
    this.#noteLink(shelf, link);
    const { kind, name } = link.identity;
    const onLost = (): void => this.#drop(shelf, spare);
    const spare = new SpareTransfer({ ...this.#identify(), agreedWith: { kind, name }, onLost });
    shelf.spares.add(spare);
    spare.open(this.#routes);
    try {
      const { transfer, token } = spare;
      const params = { transfer, token, parentUrl: this.#peers.ownUrlFor(shelf.url) };
      await link.client.call("peer.spare", params, { deadlineMs: SPARE_DEADLINE_MS });
    } catch (error) {
      this.#drop(shelf, spare);
      throw error;
    }
    if (!shelf.spares.has(spare)) throw new Error("the lanes ended at once");
  }

  #noteLink(shelf: Shelf, link: Link): void {
    if (shelf.link === link) return;
    shelf.link = link;
    link.client.onEnd(() => {
      if (shelf.link !== link) return;
      shelf.link = undefined;
      // The host may be another one when it is there again, and has no emulators kept warm then.
      this.#clear(shelf);
    });
  }

  #watchIdle(shelf: Shelf): void {
    shelf.idle?.cancel();
    if (!this.#closed && shelf.wanted.size > 0)
      shelf.idle = this.#clock.after(this.#idleMs, () => this.#clear(shelf));
  }

  #clear(shelf: Shelf): void {
    shelf.wanted.clear();
    shelf.refill?.cancel();
    shelf.idle?.cancel();
    for (const spare of [...shelf.spares]) this.#drop(shelf, spare);
  }

  #drop(shelf: Shelf, spare: SpareTransfer): void {
    if (shelf.spares.delete(spare)) spare.close();
  }
}

function targetOf({ wanted }: Shelf): number {
  let sum = 0;
  for (const count of wanted.values()) sum += count;
  return Math.min(sum, MAX_SPARES_PER_PEER);
}
