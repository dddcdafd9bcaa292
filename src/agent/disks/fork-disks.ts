import { randomUUID } from "node:crypto";
import { open } from "node:fs/promises";
import { messageOf, tenantOfGuest } from "../../base/index.js";
import { nodeOf, topNodeOf, type DiskFreeze, type DiskLayer, type GuestDisk } from "../../guest/index.js";
import type { ParentEmulator } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { ChildSpec } from "../guests/child-spec.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import type { ParentRecord } from "../transfers/transfer-record.js";
import { layersBelow } from "./far-disks.js";
import { layersOf, type ForkedDisks } from "./guest-disks.js";

type DiskServices = Pick<Services, "disks">;
type ForkServices = Pick<Services, "disks" | "blocks">;

/**
 * The disks of a guest that is forked, migrated or frozen. Beforehand, while it runs, each gets an empty overlay; in the pause all overlays are put over the disks in one step, between the
 * stop and the saving of the devices. From then on what is below is what it was at that instant, for good, and children stand on it, too.
 *
 *     before     T                  at the instant     T (frozen) ◀── P   the parent goes on writing here
 *                ◀ P, not over it yet                     ▲
 *                                                         └────── C   each child has one of its own
 *
 * What came of it is asked of the emulator when anything failed: the parent's record always says what its emulator writes.
 */
export class ForkDisks implements ForkedDisks {
  readonly #services: ForkServices;
  readonly #guest: Guest;
  /** Each ends what was offered of the disks. */
  readonly #offers: (() => void)[] = [];
  #freezes: DiskFreeze[] = [];
  #noted: Promise<void> = Promise.resolve();
  /** What children stand on. */
  #below: GuestDisk[] = [];

  constructor(services: ForkServices, guest: Guest) {
    this.#services = services;
    this.#guest = guest;
  }

  /** Of the guest, and so of its children. */
  get #tenant(): string {
    return tenantOfGuest(this.#guest.name);
  }

  /** Has a child's host be let read what the child's disks will stand on, until `endOffers`. */
  offer({ transfer, token }: Pick<ParentRecord, "transfer" | "token">): void {
    if (!this.hasDisks) return;
    const layers = new Set(layersBelow(this.#guest).flatMap(({ chain }) => chain.map(({ id }) => id)));
    const noted = () => this.noted();
    this.#offers.push(this.#services.blocks.loans.offer(transfer, { token, layers, noted }));
  }

  /** What was not taken by now is not to be had any more. */
  endOffers(): void {
    for (const end of this.#offers) end();
  }

  /**
   * Makes and opens the overlays of a guest that runs. A frozen guest has one over each disk already, in which there is nothing: children stand on what is below that.
   * @throws DiskError `too-deep`, `no-room`; GuestError; nothing is left of it then.
   */
  async prepare(): Promise<void> {
    const { config, state, live } = this.#guest;
    const { disks } = this.#services;
    if (state === "frozen") {
      this.#below = config.disks.map((disk) => ({ ...disk, chain: disk.chain.slice(1) }));
      return;
    }
    this.#below = [...config.disks];
    if (config.disks.length === 0) return;
    try {
      const over = await disks.layOver(config.disks, this.#guest.id, { tenant: this.#tenant });
      this.#freezes = config.disks.map((disk, index) => ({
        disk,
        overlay: over[index]?.chain[0] as DiskLayer,
      }));
      const uid = live.isolation?.user ?? 0;
      for (const { overlay } of this.#freezes) await disks.store.give(overlay.id, uid);
      // Children's emulators open it before the instant, and read it after.
      for (const { chain } of config.disks) await disks.store.share(chain[0]?.id ?? "");
      await live.emulator.disks.open(this.#freezes);
    } catch (error) {
      await this.abandon();
      throw error;
    }
  }

  get hasDisks(): boolean {
    return this.#guest.config.disks.length > 0;
  }

  /** The disks of a child: each an empty layer over what will be frozen. Errors as those of `prepare`. */
  layFor(child: string): Promise<GuestDisk[]> {
    return this.#services.disks.layOver(this.#below, child, { tenant: this.#tenant });
  }

  /** The emulator as a fork sees it: its pause freezes the disks, too. */
  emulator(parent: ParentEmulator): ParentEmulator {
    if (this.#freezes.length === 0) return parent;
    return {
      prepareDeviceState: async (options) => {
        const [head] = await Promise.all([parent.prepareDeviceState(options), this.sync()]);
        return head;
      },
      snapshot: (work) => this.#atStop(() => parent.snapshot(work)),
      stop: () => this.#atStop(() => parent.stop()),
      saveDeviceState: (options) => parent.saveDeviceState(options),
      resume: () => parent.resume(),
    };
  }

  /** Writes to the disk what the host has of them in memory, so that the stop, which waits for that, need not wait long. */
  async sync(): Promise<void> {
    for (const { disk } of this.#freezes) await syncFile(disk.chain[0]?.path ?? "");
  }

  /** Has the next stop of the guest freeze its disks. */
  arm(): void {
    this.#guest.live.emulator.disks.freezeAtStop(this.#freezes);
  }

  /** The guest was stopped, and its disks are frozen: notes that, while it runs on. `noted` tells when that is done. */
  taken(): void {
    const freezes = this.#freezes;
    this.#freezes = [];
    this.#noted = takeOver(this.#services, this.#guest, freezes);
    this.#noted.catch((error: unknown) => {
      // Nothing is lost by it: whoever comes next asks the emulator.
      this.#guest.log.error(
        { problem: messageOf(error) },
        "it could not be noted that a guest's disks are frozen",
      );
    });
  }

  /** Resolves when the guest's record says what its emulator writes. Nothing is thrown. */
  async noted(): Promise<void> {
    await this.#noted.catch(() => {});
  }

  /** After a failure: brings the guest's record to what its emulator writes, and removes overlays that it does not. Nothing is thrown. */
  async abandon(): Promise<void> {
    const freezes = this.#freezes;
    this.#freezes = [];
    await this.noted();
    try {
      if (this.#guest.hasEmulator) await settleDisks(this.#services, this.#guest, freezes);
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "a guest's disks could not be looked at");
    }
  }

  /** Freezes the disks with a stop of the guest. */
  async #atStop<Stopped>(stop: () => Promise<Stopped>): Promise<Stopped> {
    this.arm();
    try {
      const stopped = await stop();
      this.taken();
      return stopped;
    } finally {
      this.#guest.live.emulator.disks.forget();
    }
  }
}

/** Notes that a guest writes overlays from now on, and that nobody writes what is below. */
async function takeOver(
  { disks }: DiskServices,
  guest: Guest,
  freezes: readonly DiskFreeze[],
): Promise<void> {
  const over = new Map(freezes.map(({ disk, overlay }) => [disk.name, overlay]));
  const changed = guest.config.disks.map((disk) => {
    const overlay = over.get(disk.name);
    return overlay === undefined ? disk : { ...disk, chain: [overlay, ...disk.chain] };
  });
  await guest.update({ disks: changed });
  for (const { disk } of freezes) await disks.store.freeze(disk.chain[0]?.id ?? "");
}

/**
 * Finds out which layers a guest's emulator writes, and notes it where the record says otherwise: whoever had the overlays put there may have ended before. Layers made
 * for the guest that it does not write are removed.
 * @param opened overlays that may be open in the emulator; those of an earlier agent are found.
 * @throws AgentError `bad-record` when it writes a layer that is not known here, GuestError.
 */
export async function settleDisks(
  services: DiskServices,
  guest: Guest,
  opened: readonly DiskFreeze[] = [],
): Promise<void> {
  const { store } = services.disks;
  const { emulator } = guest.live;
  const { disks } = guest.config;
  if (disks.length === 0) return;
  const tops = await emulator.disks.tops(disks);
  const inPlace: DiskFreeze[] = [];
  const unused = new Map(opened.map((freeze) => [freeze.overlay.id, freeze]));
  for (const disk of disks) {
    const top = disk.chain[0]?.id;
    for (const { id, parent } of store.list().filter(({ writer }) => writer === guest.id)) {
      if (parent === undefined || !("disk" in parent) || parent.disk !== top) continue;
      const freeze = { disk, overlay: { id, format: "qcow2" as const, path: store.pathOf(id) } };
      if (nodeOf(disk, freeze.overlay) !== tops.get(disk.name)) unused.set(id, freeze);
      else {
        inPlace.push(freeze);
        unused.delete(id);
      }
    }
    if (tops.get(disk.name) === topNodeOf(disk) || inPlace.some((freeze) => freeze.disk === disk)) continue;
    throw new AgentError(
      "bad-record",
      `${disk.name} of guest ${guest.name} is written to ${tops.get(disk.name)}, which this host does not know as its layer`,
    );
  }
  if (inPlace.length > 0) await takeOver(services, guest, inPlace);
  // An agent may have ended between noting what is written and that what is below is not any more.
  for (const { chain } of guest.config.disks)
    for (const { id } of chain.slice(1)) if (store.find(id)?.writer === guest.id) await store.freeze(id);
  const left = [...unused.values()];
  await emulator.disks.close(left);
  // Only they themselves: what is below them is what the guest writes.
  for (const { overlay } of left) await store.remove(overlay.id);
  for (const { chain } of guest.config.disks) {
    const top = chain[0]?.id ?? "";
    if (store.childrenOf(top).length === 0) await store.unshare(top);
  }
}

/** Writes to the disk what the host has of a file in memory. Throws the file system's error. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Removes what only this guest, or this child that never came to be one, had of disks. */
export function forgetDisks(
  { disks, registry }: Pick<Services, "disks" | "registry">,
  id: string,
): Promise<void> {
  return disks.forget(id, layersOf(registry.list(), { but: id }));
}

/**
 * Starts the emulator of a child on its parent's own host, with disks of its own over its parent's. Nothing is left when it fails.
 * @param fork the disks of the parent; undefined when that is on another host.
 */
export async function startChildWithDisks(
  services: Services,
  fork: ForkedDisks | undefined,
  { spec, what }: { spec: ChildSpec; what: string },
): Promise<LiveEmulator> {
  if (fork?.hasDisks !== true) return services.starter.startChild(spec, what);
  // A migrated guest keeps the id it has.
  const id = spec.id ?? randomUUID();
  try {
    const disks = await fork.layFor(id);
    return await services.starter.startChild({ ...spec, id, disks }, what);
  } catch (error) {
    await forgetDisks(services, id);
    throw error;
  }
}

/** @throws AgentError `refused` for a guest with disks. */
export function requireNoDisks(guest: Guest, doing: string): void {
  if (guest.config.disks.length === 0) return;
  throw new AgentError(
    "refused",
    `guest ${guest.name} has disks, which are on this host only: it cannot be ${doing}`,
  );
}
