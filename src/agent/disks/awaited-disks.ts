import type { TransferKind, TransferView } from "../../control/index.js";
import type { ChainLayer } from "../../disk/index.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";

/** For how long after a question of the parent's host that host counts as there. It asks once a second. */
const THERE_US = 5_000_000;

/**
 * The disks of a migrated child that its host has not all of. Until they are here the child is not complete, though its memory may be: its parent is kept, may be let run on instead,
 * and the child runs only while it hears of the parent's host, which asks for it from then on.
 */
export class AwaitedDisks {
  readonly #services: Pick<Services, "disks" | "arrivingImages" | "clock">;
  readonly #guest: Guest;
  #askedUs: number | undefined;

  readonly #isMigrated: boolean;

  constructor(
    services: Pick<Services, "disks" | "arrivingImages" | "clock">,
    guest: Guest,
    kind: TransferKind,
  ) {
    this.#services = services;
    this.#guest = guest;
    // A fork's child is complete when its memory is: its parent runs on, and only lends what is frozen.
    this.#isMigrated = kind === "migrate";
  }

  /** Whether there are any: an emulator reads each where it lies when it is here. */
  get any(): boolean {
    return this.#layers.length > 0;
  }

  /** How far those are that are on their way still; undefined when there are none. */
  get view(): TransferView["disks"] {
    const layers = this.#layers.flatMap((layer) => this.#progressOf(layer) ?? []);
    if (layers.length === 0) return undefined;
    const { message } = layers.find((layer) => layer.message !== undefined) ?? {};
    return {
      hereBytes: layers.reduce((sum, { hereBytes }) => sum + hereBytes, 0),
      fileBytes: layers.reduce((sum, { fileBytes }) => sum + fileBytes, 0),
      ...(message === undefined ? {} : { message }),
    };
  }

  /** Puts `view` into what is known of a transfer. */
  tellIn(facts: { disks?: NonNullable<TransferView["disks"]> }): void {
    const { view } = this;
    if (view === undefined) delete facts.disks;
    else facts.disks = view;
  }

  /** The parent's host asks for the child. */
  noteAsked(): void {
    this.#askedUs = this.#services.clock.nowUs();
  }

  /** Whether the parent's host has asked just now. */
  get isParentThere(): boolean {
    return this.#askedUs !== undefined && this.#services.clock.nowUs() - this.#askedUs < THERE_US;
  }

  get #layers(): ChainLayer[] {
    if (!this.#isMigrated) return [];
    const layers = this.#guest.config.disks.flatMap(({ chain }) => chain);
    return layers.filter(
      ({ id, socket }) => socket !== undefined || this.#services.disks.arrivals.isAwaited(id),
    );
  }

  #progressOf({ id, format }: ChainLayer) {
    const { disks, arrivingImages } = this.#services;
    if (format === "raw") return arrivingImages.arrivalOf(id);
    return disks.store.has(id) ? disks.arrivals.progressOf({ id }) : undefined;
  }
}
