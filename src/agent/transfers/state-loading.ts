import type { Emulator } from "../../guest/index.js";
import type { TransferEntry } from "./transfer-entry.js";

/** A child's device state on its way into its emulator, which may be given the first part of it ahead. */
export class StateLoading {
  readonly #emulator: Emulator;
  readonly #entry: TransferEntry;
  /** Bytes that the emulator has been given ahead. */
  #aheadBytes = 0;

  constructor(emulator: Emulator, entry: TransferEntry) {
    this.#emulator = emulator;
    this.#entry = entry;
  }

  /** Whether the rest comes after what came ahead. */
  continuesAt(aheadBytes = 0): boolean {
    return aheadBytes === this.#aheadBytes;
  }

  /** Gives the first part. @throws GuestError. */
  async begin(head: Uint8Array): Promise<void> {
    this.#aheadBytes = head.length;
    this.#entry.addControlBytes(head.length);
    await this.#emulator.beginDeviceState(head);
  }

  /** Gives the rest, and waits until all is loaded, and with `run` until the child runs. @throws GuestError. */
  async finish(rest: Uint8Array, { run }: { run: boolean }): Promise<void> {
    this.#entry.addControlBytes(rest.length);
    await this.#emulator.loadDeviceState(rest, { run });
  }
}
