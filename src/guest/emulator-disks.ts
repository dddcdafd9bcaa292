import { ChainJobs } from "./chain-jobs.js";
import {
  blockNode,
  fileNode,
  freezeCommand,
  nodeOf,
  throttleOf,
  topNodes,
  type DiskFreeze,
  type DiskLayer,
  type FreezeCommand,
  type GuestDisk,
} from "./disks.js";
import { GuestError } from "./errors.js";

type Execute = (command: string, args?: object, deadlineMs?: number) => Promise<unknown>;

/** What is to be sent in a pause. */
export type PendingFreeze = FreezeCommand | undefined;

/** A running emulator's disks: layers come and go without the guest's knowledge. Errors as those of `Emulator`. */
export class EmulatorDisks {
  /** What brings layers together. */
  readonly jobs: ChainJobs;
  readonly #execute: Execute;
  #pending: PendingFreeze;

  constructor(execute: Execute) {
    this.#execute = execute;
    this.jobs = new ChainJobs(execute);
  }

  /** Opens the overlays, which nobody reads or writes yet; of all or of none. The guest runs meanwhile. */
  async open(freezes: readonly DiskFreeze[]): Promise<void> {
    const opened: DiskFreeze[] = [];
    try {
      for (const freeze of freezes) {
        const { disk, overlay } = freeze;
        await this.#execute(
          "blockdev-add",
          blockNode(disk, overlay, { backing: undefined, readOnly: false }),
        );
        opened.push(freeze);
      }
    } catch (error) {
      await this.close(opened);
      throw error;
    }
  }

  /** Closes overlays that were never put over anything. What the emulator does not have any more is closed. */
  async close(freezes: readonly DiskFreeze[]): Promise<void> {
    for (const { disk, overlay } of freezes) {
      try {
        await this.#execute("blockdev-del", { "node-name": nodeOf(disk, overlay) });
      } catch (error) {
        if (!(error instanceof GuestError) || error.code !== "command-failed") throw error;
      }
    }
  }

  /**
   * Has the next stop of the guest put the overlays over its disks, of all at the same instant. `forget` takes that back.
   * @param freezes what was opened.
   */
  freezeAtStop(freezes: readonly DiskFreeze[]): void {
    this.#pending = freezeCommand(freezes);
  }

  /** Puts the overlays over the disks now, of all or of none, while the guest runs. */
  async freezeNow(freezes: readonly DiskFreeze[]): Promise<void> {
    const freeze = freezeCommand(freezes);
    if (freeze !== undefined) await this.#execute(freeze.command, freeze.args);
  }

  /** Nothing is frozen at the next stop. */
  forget(): void {
    this.#pending = undefined;
  }

  /** What is to be sent behind the stop; once. */
  takePending(): PendingFreeze {
    const pending = this.#pending;
    this.#pending = undefined;
    return pending;
  }

  /** The node each disk writes to, as the emulator has it. @throws GuestError `protocol`. */
  async tops(disks: readonly GuestDisk[]): Promise<ReadonlyMap<string, string>> {
    if (disks.length === 0) return new Map();
    const tops = topNodes(await this.#execute("query-block"), disks);
    if (tops === undefined)
      throw new GuestError("protocol", "the emulator did not say what its disks write to");
    return tops;
  }

  /**
   * Has a layer whose file was on its way be read where that lies now; the guest runs on. What reads there now is answered first. May be done twice.
   */
  async localise(disk: GuestDisk, layer: DiskLayer): Promise<void> {
    const node = fileNode(disk, layer);
    try {
      await this.#execute("blockdev-add", node);
    } catch (error) {
      // It was added before; if not, the next command says so.
      if (!(error instanceof GuestError) || error.code !== "command-failed") throw error;
    }
    const backing = disk.chain[disk.chain.findIndex(({ id }) => id === layer.id) + 1];
    const options = blockNode(disk, layer, { backing, readOnly: true, file: node["node-name"] });
    await this.#execute("blockdev-reopen", { options: [options] });
  }

  /** Puts the limits of disks that have any into force. */
  async limit(disks: readonly GuestDisk[]): Promise<void> {
    for (const disk of disks) {
      const throttle = throttleOf(disk);
      if (throttle !== undefined) await this.#execute("block_set_io_throttle", throttle);
    }
  }
}
