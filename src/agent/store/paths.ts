import { join } from "node:path";

/** The file in a guest's memory directory that says in which order its children touch pages. */
export const WORKING_SET_NAME = "working-set";

/** The file of copies in a guest's memory directory. */
export const COPIES_NAME = "copies";

/**
 * Where an agent keeps what.
 *
 *     stateDirectory/             memoryDirectory/
 *       audit.log(.1 to .4), audit.log-tenants(.1 to .4)
 *       former-children.json
 *       lock                        <uuid>/ram       a guest's memory, while an emulator has it
 *       host-id
 *       exchange-run.json         how far the exchange of every guest's emulator is, or how the latest went
 *       images/<digest>/
 *       arriving/<digest>.json    a base disk that guests run on while it comes
 *       boot/<sha256>               <uuid>/copies    pages a fork's parent wrote and its children lack
 *                                   <uuid>/working-set      in which order children of the guest touched its pages
 *                                   <uuid>/zeros, digests   notes of a child that is not complete
 *                                   <uuid>/shared    some emulator has mapped, or had, this memory privately
 *                                   <uuid>/exchange.json  how far the exchange of its emulator is
 *                                   <uuid>/template  the device state of a frozen guest
 *                                   <uuid>/suspended.json, suspended  how far a guest is suspended, and its device state
 *       disks/<uuid>/             a differencing disk, what one guest writes
 *       rehearsal/                files of transfers that are rehearsed, while that goes on
 *       swaps/<uuid>.json         how far the exchange of two guests' roles is
 *       borrowed/                 which disks other hosts keep for this one
 *       guests/<uuid>/
 *         guest.json                what is known of the guest, replaced in one step
 *         console.log(.1)           bounded
 *         chain.json                what is being done to the chain of one of its disks
 *         emulator.log, run, alt    the emulator's; while it is exchanged, both emulators'
 *
 * The uuid is that of an emulator with its memory: a warm one has its directories before it has a guest, so a guest that takes it over
 * moves nothing. A migrated guest keeps its uuid on each host it comes to.
 */
export class Paths {
  readonly #stateDirectory: string;
  readonly #memoryDirectory: string;

  constructor(options: { stateDirectory: string; memoryDirectory: string }) {
    this.#stateDirectory = options.stateDirectory;
    this.#memoryDirectory = options.memoryDirectory;
  }

  get memory(): string {
    return this.#memoryDirectory;
  }

  /** Who commanded what. */
  get audit(): string {
    return join(this.#stateDirectory, "audit.log");
  }

  /** Which migrated guests ran here and are gone. */
  get formerChildren(): string {
    return join(this.#stateDirectory, "former-children.json");
  }

  /** Who this agent is to those it shares directories with. */
  get hostId(): string {
    return join(this.#stateDirectory, "host-id");
  }

  /** Base disks, unless the configuration says where else. */
  get images(): string {
    return join(this.#stateDirectory, "images");
  }

  /** What is known of base disks that guests run on while they come. */
  get arrivingImages(): string {
    return join(this.#stateDirectory, "arriving");
  }

  /** Files of transfers that are rehearsed. */
  get rehearsal(): string {
    return join(this.#stateDirectory, "rehearsal");
  }

  get boot(): string {
    return join(this.#stateDirectory, "boot");
  }

  /** Differencing disks. */
  get disks(): string {
    return join(this.#stateDirectory, "disks");
  }

  /** Which disks other hosts keep for this one. */
  get borrowed(): string {
    return join(this.#stateDirectory, "borrowed");
  }

  get guests(): string {
    return join(this.#stateDirectory, "guests");
  }

  /** What is known of exchanges of roles that are under way. */
  get swaps(): string {
    return join(this.#stateDirectory, "swaps");
  }

  guest(id: string): string {
    return join(this.guests, id);
  }

  record(id: string): string {
    return join(this.guest(id), "guest.json");
  }

  /** What is being done to the chain of one of a guest's disks. */
  chainWork(id: string): string {
    return join(this.guest(id), "chain.json");
  }

  consoleLog(id: string): string {
    return join(this.guest(id), "console.log");
  }

  emulatorLog(id: string): string {
    return join(this.guest(id), "emulator.log");
  }

  guestMemory(id: string): string {
    return join(this.#memoryDirectory, id);
  }

  copies(id: string): string {
    return join(this.guestMemory(id), COPIES_NAME);
  }

  workingSet(id: string): string {
    return join(this.guestMemory(id), WORKING_SET_NAME);
  }

  /** Is there once another guest's emulator may have mapped the memory: it must not be cut back then. */
  sharedMark(id: string): string {
    return join(this.guestMemory(id), "shared");
  }

  /** How far the exchange of a guest's emulator is. */
  exchange(id: string): string {
    return join(this.guestMemory(id), "exchange.json");
  }

  /** How far the exchange of every guest's emulator is. */
  get exchangeRun(): string {
    return join(this.#stateDirectory, "exchange-run.json");
  }

  /** The device state of a frozen guest. */
  template(id: string): string {
    return join(this.guestMemory(id), "template");
  }

  /** How far a guest is on its way out of its emulator or back into one. */
  suspension(id: string): string {
    return join(this.guestMemory(id), "suspended.json");
  }

  /** The device state of a suspended guest. */
  suspendedState(id: string): string {
    return join(this.guestMemory(id), "suspended");
  }

  ram(id: string): string {
    return join(this.guestMemory(id), "ram");
  }
}
