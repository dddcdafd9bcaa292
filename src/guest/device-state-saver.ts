import {
  closeSync,
  fchownSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from "node:fs";
import { PAGE_BYTES, type Clock } from "../base/index.js";
import type { GuestConfig } from "./config.js";
import type { SavedDeviceState } from "./emulator.js";
import {
  StateWriter,
  writeDevices,
  writeMemoryEnd,
  writeMemoryStart,
  writePages,
  writeStart,
} from "./device-state.js";
import { GuestError } from "./errors.js";
import { pauseDeadlineMs, type HeldSave, type HeldSaves, type InPause } from "./held-save.js";
import type { Layout } from "./layout.js";
import { MAX_DEVICE_STATE_BYTES, PREPARED_ROOM_BYTES, SAVE_DEADLINE_MS } from "./limits.js";
import {
  blocksToCarry,
  candidatesFor,
  existingPages,
  kindOf,
  parseBlockList,
  parsePlace,
  placeQuestion,
  readMemory,
  type ListedBlock,
  type MemoryBlock,
} from "./memory-blocks.js";
import type { EmulatorDisks } from "./emulator-disks.js";
import type { QmpClient } from "./qmp.js";
import { saidPath } from "./said-path.js";

/** The part of a state that could be written before the pause, and what is missing. */
interface Prepared {
  writer: StateWriter;
  inPause: readonly MemoryBlock[];
  handOver: boolean;
}

/** Whole pages of a memory block, as they were in the pause. */
interface Piece {
  name: string;
  offset: number;
  bytes: Buffer;
}

/** A saving under way in the emulator. Its failure is noticed by whoever awaits it. */
interface Begun {
  handOver: boolean;
  saved: Promise<unknown>;
}

/**
 * Saves an emulator's device state. Done before the pause, by `prepare`: asking for the memory blocks, finding them in the
 * process, reading those that cannot change. Left for the pause: the emulator's own saving, and meanwhile reading the few pages that can
 * change. Joining them can wait until the guest runs on.
 *
 *   prepare ──▶ begin (sent with the stop) ──▶ save ──▶ (the guest runs on) ──▶ compose
 *
 * The emulator carries out commands in the order in which they come, so the saving is sent directly behind the stop: it spares
 * the pause one round trip, and runs while the caller does what else must be done in the pause.
 *
 * Where the size of the state is known, a guest that is to run on is saved in one command instead (`held-save.ts`): prepare ──▶ saveHeld ──▶ compose.
 */
export class DeviceStateSaver {
  readonly #pid: number;
  readonly #config: GuestConfig;
  readonly #layout: Layout;
  readonly #clock: Clock;
  readonly #heldSaves: HeldSaves | undefined;
  readonly #places = new Map<string, number>();
  #head: { key: string; bytes: Buffer } | undefined;
  #memory: number | undefined;
  #pagemap: number | undefined;
  #file: number | undefined;
  #prepared: Prepared | undefined;
  #begun: Begun | undefined;
  #held: HeldSave | undefined;

  constructor(options: {
    pid: number;
    config: GuestConfig;
    layout: Layout;
    clock: Clock;
    heldSaves: HeldSaves | undefined;
  }) {
    this.#pid = options.pid;
    this.#config = options.config;
    this.#layout = options.layout;
    this.#clock = options.clock;
    this.#heldSaves = options.heldSaves;
  }

  /**
   * Does what can be done while the guest runs. The guest must have been booted or loaded: before, firmware is not in place.
   * @param options.handOver what `save` will be asked for.
   * @param options.ahead nobody asks for it yet: does only what lasts as long as the emulator.
   * @returns what the composed state will begin with.
   * @throws GuestError `unsupported-memory` when the emulator has memory that cannot be carried or found.
   */
  async prepare(qmp: QmpClient, options: { handOver: boolean; ahead?: boolean }): Promise<Uint8Array> {
    // What was prepared before was given up.
    if (options.ahead !== true) this.discard();
    const blocks = await this.#findBlocks(qmp);
    if (options.ahead === true) return this.#headOf(blocks);
    this.#prepareTarget(qmp, options);
    return this.#prepareWriter(blocks, options);
  }

  async #findBlocks(qmp: QmpClient): Promise<MemoryBlock[]> {
    const listed = blocksToCarry(parseBlockList(await qmp.executeHuman("info ramblock")));
    this.#memory ??= openSync(`/proc/${this.#pid}/mem`, "r");
    this.#pagemap ??= openSync(`/proc/${this.#pid}/pagemap`, "r");
    const blocks: MemoryBlock[] = [];
    // All of them were listed, so they are mapped by now.
    let maps: string | undefined;
    const mapsOf = (): string => (maps ??= readFileSync(`/proc/${this.#pid}/maps`, "utf8"));
    for (const block of listed) {
      blocks.push({ ...block, kind: kindOf(block.name), address: await this.#placeOf(block, qmp, mapsOf) });
    }
    return blocks;
  }

  #prepareWriter(blocks: readonly MemoryBlock[], { handOver }: { handOver: boolean }): Buffer {
    const inPause = blocks.filter((block) => block.kind !== "fixed");
    const head = this.#headOf(blocks);
    const changingBytes = sumBytes(blocks.filter((block) => block.kind === "changing"));
    const writer = new StateWriter(head.length + changingBytes * 1.1 + PREPARED_ROOM_BYTES);
    writer.bytes(head);
    this.#prepared = { writer, inPause, handOver };
    return head;
  }

  /** Sends the saving behind a stop that was just sent. Does nothing unless prepared. */
  begin(qmp: QmpClient): void {
    if (this.#prepared !== undefined && this.#file !== undefined) this.#begin(qmp, this.#prepared.handOver);
  }

  /** To be called when the emulator says that the guest has stopped. */
  noteStopped(): void {
    this.#held?.noteStopped();
  }

  /**
   * Saves the device state of a guest that runs and is to run on. Undefined, and nothing was done, unless `prepare` found that possible.
   * @throws GuestError `ran-on`: to be tried again, which is done in steps; `command-failed`, `timeout`, `gone`, and what `work` throws.
   */
  async saveHeld(qmp: QmpClient, work: InPause, disks: EmulatorDisks): Promise<SavedDeviceState | undefined> {
    if (this.#held === undefined || this.#prepared === undefined) return undefined;
    const { writer, inPause } = this.#prepared;
    this.#prepared = undefined;
    let pieces: Piece[] = [];
    try {
      const held = {
        onStopped: () => {
          work.onStopped();
          pieces = inPause.flatMap((block) => this.#readCurrent(block));
        },
        atInstant: () => work.atInstant(),
      };
      const { saved, isHeld } = await this.#held.run(qmp, held, disks.takePending());
      if (isHeld) {
        this.#heldSaves?.note(this.#kind(qmp), saved.length);
        return { compose: () => compose(writer, pieces, saved) };
      }
      this.#heldSaves?.forget(this.#kind(qmp));
    } finally {
      this.discard();
    }
    throw new GuestError(
      "ran-on",
      "the guest ran on before its instant, because its device state had another size than before",
    );
  }

  /**
   * Saves the device state of a stopped guest. Only what the running guest could change is read here; the rest is left to `compose`.
   * @param options.handOver whether the emulator also lets go of disks; it must then not resume without taking them back.
   * @throws GuestError `command-failed`, `timeout`; `compose` throws `bad-device-state`.
   */
  async save(qmp: QmpClient, options: { handOver: boolean }): Promise<SavedDeviceState> {
    if (this.#prepared === undefined || this.#file === undefined) {
      this.discard();
      this.#file = this.#createFile();
      this.#prepareWriter(await this.#findBlocks(qmp), options);
    }
    const { writer, inPause } = this.#prepared as Prepared;
    this.#prepared = undefined;
    if (this.#begun?.handOver !== options.handOver) this.#begin(qmp, options.handOver);
    const { saved } = this.#begun as Begun;
    // While the emulator saves; the guest is stopped, so nothing writes these blocks.
    const pieces = inPause.flatMap((block) => this.#readCurrent(block));
    await saved;
    const devices = this.#readSaved();
    this.#heldSaves?.note(this.#kind(qmp), devices.length);
    this.discard();
    return { compose: () => compose(writer, pieces, devices) };
  }

  /** Forgets what was prepared or begun, for a guest that runs again. */
  discard(): void {
    this.#prepared = undefined;
    this.#begun = undefined;
    this.#held?.close();
    this.#held = undefined;
    if (this.#file === undefined) return;
    closeSync(this.#file);
    this.#file = undefined;
    rmSync(this.#layout.savePath, { force: true });
  }

  /** Lets go of the process. */
  close(): void {
    this.discard();
    if (this.#memory !== undefined) closeSync(this.#memory);
    if (this.#pagemap !== undefined) closeSync(this.#pagemap);
    this.#memory = undefined;
    this.#pagemap = undefined;
  }

  #begin(qmp: QmpClient, handOver: boolean): void {
    const command = { filename: saidPath(this.#pid, this.#layout.savePath), live: handOver };
    const saved = qmp.execute("xen-save-devices-state", command, { deadlineMs: SAVE_DEADLINE_MS });
    // Nobody may ever await it, when the stop itself has failed.
    saved.catch(() => {});
    this.#begun = { handOver, saved };
  }

  /** Made here, for the emulator may not create files beside its memory. It belongs to the owner of the run directory, who is the emulator's user. */
  #createFile(): number {
    rmSync(this.#layout.savePath, { force: true });
    const file = openSync(this.#layout.savePath, "wx+", 0o600);
    const { uid, gid } = this.#owner();
    if (uid !== process.geteuid?.()) fchownSync(file, uid, gid);
    return file;
  }

  /** Makes what the emulator is to save to: a pipe that holds it up, or else a file. */
  #prepareTarget(qmp: QmpClient, options: { handOver: boolean }): void {
    this.#held = options.handOver
      ? undefined
      : this.#heldSaves?.begin({
          kind: this.#kind(qmp),
          pid: this.#pid,
          path: this.#layout.savePath,
          owner: this.#owner(),
          pauseMs: pauseDeadlineMs(this.#config.memoryBytes),
          clock: this.#clock,
        });
    if (this.#held === undefined) this.#file = this.#createFile();
  }

  #owner(): { uid: number; gid: number } {
    const { uid, gid } = statSync(this.#layout.runDirectory);
    return { uid, gid };
  }

  /** Emulators of one kind have device states of one size. */
  #kind({ version }: QmpClient): string {
    const { machine, accelerator, cpus, network, disks } = this.#config;
    return JSON.stringify([version, machine, accelerator, cpus, network.mode, disks.length]);
  }

  #readSaved(): Buffer {
    const file = this.#file as number;
    const { size } = fstatSync(file);
    if (size > MAX_DEVICE_STATE_BYTES) {
      throw new GuestError(
        "bad-device-state",
        `the emulator saved ${size} bytes of device state; at most ${MAX_DEVICE_STATE_BYTES} are taken`,
      );
    }
    const bytes = Buffer.allocUnsafe(size);
    const got = readSync(file, bytes, 0, bytes.length, 0);
    return bytes.subarray(0, got);
  }

  async #placeOf(block: ListedBlock, qmp: QmpClient, maps: () => string): Promise<number> {
    // A block stays where it is for the life of the emulator.
    const known = block.address ?? this.#places.get(block.name);
    if (known !== undefined) return known;
    const question = placeQuestion(block);
    const candidates = candidatesFor(block, maps());
    const place =
      question === undefined ? candidates[0] : parsePlace(block, await qmp.executeHuman(question));
    if (
      place === undefined ||
      !candidates.includes(place) ||
      (question === undefined && candidates.length > 1)
    ) {
      throw new GuestError(
        "unsupported-memory",
        `the emulator's memory named ${block.name} cannot be found in its process`,
      );
    }
    this.#places.set(block.name, place);
    return place;
  }

  /** What a state with these blocks begins with; the same object as long as they stay the same. */
  #headOf(blocks: readonly MemoryBlock[]): Buffer {
    const key = JSON.stringify(blocks);
    if (this.#head?.key === key) return this.#head.bytes;
    const fixed = blocks.filter((block) => block.kind === "fixed");
    const writer = new StateWriter(sumBytes(fixed) * 1.1 + PREPARED_ROOM_BYTES);
    writeStart(writer, this.#config);
    writeMemoryStart(writer, blocks);
    for (const block of fixed) writePages(writer, block.name, 0, this.#read(block, 0, block.usedBytes));
    this.#head = { key, bytes: writer.finish() };
    return this.#head.bytes;
  }

  #readCurrent(block: MemoryBlock): Piece[] {
    const { name } = block;
    if (block.kind === "changing") return [{ name, offset: 0, bytes: this.#read(block, 0, block.usedBytes) }];
    return [...existingPages(this.#pagemap as number, block)].map((run) => {
      const offset = run.first * PAGE_BYTES;
      return { name, offset, bytes: this.#read(block, offset, run.count * PAGE_BYTES) };
    });
  }

  #read(block: MemoryBlock, offset: number, sizeBytes: number): Buffer {
    const bytes = Buffer.allocUnsafe(sizeBytes);
    readMemory(this.#memory as number, block.address + offset, bytes);
    return bytes;
  }
}

/** Completes what was written before the pause. */
function compose(writer: StateWriter, pieces: readonly Piece[], devices: Buffer): Buffer {
  for (const { name, offset, bytes } of pieces) writePages(writer, name, offset, bytes);
  writeMemoryEnd(writer);
  writeDevices(writer, devices);
  return writer.finish();
}

function sumBytes(blocks: readonly ListedBlock[]): number {
  return blocks.reduce((total, block) => total + block.usedBytes, 0);
}
