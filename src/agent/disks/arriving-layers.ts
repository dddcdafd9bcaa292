import { messageOf, type Clock, type Log } from "../../base/index.js";
import type { DiskView } from "../../control/index.js";
import { DiskError, type Disk, type DiskArrival, type DiskParent, type DiskStore } from "../../disk/index.js";
import type { GuestDisk } from "../../guest/index.js";
import type { Services } from "../services.js";
import { dialLane } from "../transfers/dial-lane.js";
import { ArrivingLayer, isArriving, type LayerHost } from "./arriving-layer.js";
import { Borrowings } from "./borrowings.js";
import { requireHolder } from "./layer-loans.js";
import { localise } from "./localise.js";
import { Turns } from "./turns.js";

/** A source answers from what it knows, and at the most opens a file. */
const CALL_DEADLINE_MS = 10_000;

/** Calls to one host at a time. A chain may have more layers than one connection may have requests unanswered, and others have requests on it, too. */
const MAX_CALLS = 4;

type HostServices = Pick<Services, "peers" | "registry" | "configuration" | "credentials" | "clock" | "log">;

/** Disks whose files come from other hosts, where children of guests there are to run on them. */
export class ArrivingLayers {
  readonly #store: DiskStore;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #layers = new Map<string, ArrivingLayer>();
  readonly #host: LayerHost;
  readonly #calls = new Turns(MAX_CALLS);
  readonly #borrowings: Borrowings;
  #services: HostServices | undefined;
  /** One after the other: several children may expect the same. */
  #expecting: Promise<unknown> = Promise.resolve();

  /** @param options.borrowed where it is noted which disks other hosts keep for this one. */
  constructor(options: { store: DiskStore; borrowed: string; clock: Clock; log: Log }) {
    const { store, borrowed: directory, clock, log } = options;
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    const tell = (arrival: DiskArrival, disk: string): Promise<void> => this.#tell(arrival, disk);
    this.#borrowings = new Borrowings({ directory, tell, clock, log });
    this.#host = {
      open: (arrival, asked) => {
        const params = { transfer: arrival.transfer, disk: asked.disk };
        const token = asked.token === undefined ? {} : { token: asked.token };
        return this.#calls.take(arrival.url, async () => {
          const client = await this.#linkTo(arrival);
          return client.call("peer.openLayer", { ...params, ...token }, { deadlineMs: CALL_DEADLINE_MS });
        });
      },
      dial: ({ url, holder }, { purpose, epoch, grant, token }) =>
        dialLane(this.#connected(), { url, holder, purpose, epoch, transfer: grant, token }),
      giveBack: (arrival, disk) => this.#borrowings.giveBack(arrival, disk),
      localise: (disk) => localise(this.#connected(), this.#store, { id: disk }),
    };
  }

  /** Serves what an earlier agent has left: emulators wait for it. */
  async takeUp(): Promise<void> {
    for (const disk of this.#store.list().filter(isArriving)) {
      try {
        const { store, host, clock, log } = this.#parts();
        this.#layers.set(disk.id, await ArrivingLayer.open(disk, { store, host, clock, log }));
      } catch (error) {
        this.#log.error({ disk: disk.id, problem: messageOf(error) }, "a disk on its way cannot be read");
      }
    }
  }

  /** From here on hosts can be asked: what was begun goes on. */
  connect(services: HostServices): void {
    this.#services = services;
    void this.dropRemoved();
    void this.#borrowings.goOn((id, { transfer }) => {
      return this.#store.has(id) && this.#store.get(id).arriving?.transfer === transfer;
    });
    for (const layer of this.#layers.values()) layer.goOn();
  }

  /** Enters a disk that is to come, unless it is here. Errors as those of `DiskStore.expect`. */
  expect(
    disk: { id: string; sizeBytes: number; tenant: string; parent?: DiskParent },
    arrival: DiskArrival & { token: string },
  ): Promise<void> {
    const expecting = this.#expecting.then(async () => {
      if (this.#store.has(disk.id)) return this.#requireSame(disk);
      const { token, ...arriving } = arrival;
      await this.#borrowings.note(arriving, disk.id);
      try {
        const expected = await this.#store.expect({ ...disk, arriving });
        if (!isArriving(expected)) return;
        this.#layers.set(disk.id, await ArrivingLayer.open(expected, { ...this.#parts(), token }));
      } catch (error) {
        if (this.#store.has(disk.id)) await this.#store.remove(disk.id);
        void this.#borrowings.giveBack(arriving, disk.id);
        throw error;
      }
    });
    this.#expecting = expecting.catch(() => {});
    return expecting;
  }

  /** After the instant: what these disks stand on and is on its way is read from here on. @throws what a source refuses with. */
  async begin(disks: readonly GuestDisk[]): Promise<void> {
    const layers = disks.flatMap(({ chain }) => chain);
    await Promise.all(layers.map(async ({ id }) => this.#layers.get(id)?.begin()));
  }

  /** How far a disk is; undefined when it is here. */
  progressOf({ id }: Pick<Disk, "id">): DiskView["arriving"] {
    return this.#store.get(id).arriving === undefined ? undefined : this.#layers.get(id)?.progress;
  }

  /** Whether a disk is not all here, or read another way than where it lies. */
  isAwaited(id: string): boolean {
    return this.#store.has(id) && this.#store.get(id).arriving !== undefined;
  }

  /** Stops what is not needed any more. */
  async dropRemoved(): Promise<void> {
    if (this.#services === undefined) return;
    for (const [id, layer] of [...this.#layers]) {
      const isRemoved = !this.#store.has(id);
      if (!isRemoved && this.#store.get(id).arriving !== undefined) continue;
      this.#layers.delete(id);
      if (isRemoved) await layer.drop();
    }
  }

  /** Stops; what has come stays, and emulators wait for the next agent. */
  async close(): Promise<void> {
    this.#borrowings.close();
    await Promise.all([...this.#layers.values()].map((layer) => layer.close()));
  }

  /** What has the same name here must be the same: nobody writes it, and it stands on the same. */
  #requireSame({
    id,
    sizeBytes,
    tenant,
    parent,
  }: {
    id: string;
    sizeBytes: number;
    tenant: string;
    parent?: DiskParent;
  }): void {
    const here = this.#store.get(id, tenant);
    const isEqual = JSON.stringify(here.parent) === JSON.stringify(parent) && here.sizeBytes === sizeBytes;
    if (here.frozen && isEqual) return;
    throw new DiskError("in-use", `this host has a disk ${id} that is not the one of the other host`);
  }

  #parts() {
    return { store: this.#store, host: this.#host, clock: this.#clock, log: this.#log };
  }

  #connected(): HostServices {
    if (this.#services === undefined) throw new Error("hosts are asked for disks once there are peers");
    return this.#services;
  }

  async #linkTo({ url, holder }: DiskArrival) {
    const { client, identity } = await this.#connected().peers.link(url);
    requireHolder(holder, identity, url);
    return client;
  }

  #tell(arrival: DiskArrival, disk: string): Promise<void> {
    const params = { transfer: arrival.transfer, disk };
    return this.#calls.take(arrival.url, async () => {
      const client = await this.#linkTo(arrival);
      await client.call("peer.returnLayer", params, { deadlineMs: CALL_DEADLINE_MS });
    });
  }
}
