/**
 * Composes the stream an emulator loads (QEMU, docs/devel/migration.rst) from what another one saved. Bytes only.
 *
 *   saved by the parent's emulator          composed, for the child's emulator
 *   ┌───────────────┐                       ┌───────────────┐
 *   │ magic         │──────────────────────▶│ magic         │
 *   ├───────────────┤                       ├───────────────┤
 *   │ devices …     │──────────┐            │ configuration │ the machine type; without it nothing is loaded
 *   └───────────────┘          │            ├───────────────┤
 *                              │            │ ram           │ every memory block but guest memory: without the
 *                              │            │               │ firmware in it, the child could never reboot
 *                              │            ├───────────────┤
 *                              └───────────▶│ devices …     │ without the user-mode network's own state
 *                                           └───────────────┘
 */
import { assert, PAGE_BYTES } from "../base/index.js";
import type { Architecture } from "./config.js";
import { GuestError } from "./errors.js";
import { MAX_DEVICE_STATE_BYTES } from "./limits.js";

/** `QEVM` and version 3, the same since 2008. */
const MAGIC = Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3]);

/** Kinds of sections. */
const END_OF_STREAM = 0x00;
const SECTION_START = 0x01;
const SECTION_FULL = 0x04;
const SUBSECTION = 0x05;
const CONFIGURATION = 0x07;
const SECTION_FOOTER = 0x7e;

/** The `ram` section: its version, and flags in the low bits of a page's offset. */
const RAM_VERSION = 4;
const PAGE_ZERO = 0x02;
const MEMORY_SIZES = 0x04;
const PAGE_DATA = 0x08;
const END_OF_SECTION = 0x10;
const SAME_BLOCK = 0x20;

/** Any number does that no section of the devices has; they are numbered from 0. */
const RAM_SECTION_ID = 0x7fff_fffe;

/** Arm's page size is chosen when the machine is made, so the stream must name it: 12 bits, 4 KiB. */
const ARM_PAGE_BITS = 12;

/** Longest names that are looked at. */
const MAX_NAME_BYTES = 255;

/** Most places that look like the start or end of one section. What a guest put into a device's buffers may look so as often as it likes. */
const MAX_PLACES = 64;

/** Appends numbers, names and bytes to a buffer that grows. */
export class StateWriter {
  #bytes: Buffer;
  #length = 0;
  /** The block of the page written last, which the next page need not repeat. */
  #block = "";

  /** @param roomBytes how much fits without growing. */
  constructor(roomBytes: number) {
    // Filled, not just allocated, so that the pages are there before the pause.
    this.#bytes = Buffer.alloc(roomBytes, 0);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    this.#length = this.#room(1).writeUInt8(value, this.#length);
  }

  u32(value: number): void {
    this.#length = this.#room(4).writeUInt32BE(value, this.#length);
  }

  /** @param value at most 2^53. */
  u64(value: number): void {
    this.u32(Math.floor(value / 2 ** 32));
    this.u32(value % 2 ** 32);
  }

  bytes(value: Uint8Array): void {
    this.#room(value.length).set(value, this.#length);
    this.#length += value.length;
  }

  name(value: string): void {
    const bytes = Buffer.from(value);
    assert(bytes.length <= MAX_NAME_BYTES, `a name in a device state is short, unlike ${value}`);
    this.u8(bytes.length);
    this.bytes(bytes);
  }

  /** Starts a page of a block: where it lies, and the block's name unless the page before was of the same block. */
  page(block: string, offset: number, flag: number): void {
    if (block === this.#block) return this.u64(offset + (flag | SAME_BLOCK));
    this.u64(offset + flag);
    this.name(block);
    this.#block = block;
  }

  /** What was written, without copying it. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #room(bytes: number): Buffer {
    const needed = this.#length + bytes;
    if (needed > MAX_DEVICE_STATE_BYTES) {
      throw new GuestError(
        "bad-device-state",
        `the guest's device state is larger than ${MAX_DEVICE_STATE_BYTES} bytes`,
      );
    }
    if (needed > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(needed, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    return this.#bytes;
  }
}

/** Writes the magic and the configuration section. */
export function writeStart(
  writer: StateWriter,
  options: { machine: string; architecture: Architecture },
): void {
  writer.bytes(MAGIC);
  writer.u8(CONFIGURATION);
  const machine = Buffer.from(options.machine);
  writer.u32(machine.length);
  writer.bytes(machine);
  if (options.architecture !== "aarch64") return;
  writer.u8(SUBSECTION);
  writer.name("configuration/target-page-bits");
  writer.u32(1);
  writer.u32(ARM_PAGE_BITS);
}

/** Starts the `ram` section, whose head lists the blocks in it. */
export function writeMemoryStart(
  writer: StateWriter,
  blocks: readonly { name: string; usedBytes: number }[],
): void {
  writer.u8(SECTION_START);
  writer.u32(RAM_SECTION_ID);
  writer.name("ram");
  writer.u32(0);
  writer.u32(RAM_VERSION);
  writer.u64(blocks.reduce((total, block) => total + block.usedBytes, 0) + MEMORY_SIZES);
  for (const block of blocks) {
    writer.name(block.name);
    writer.u64(block.usedBytes);
  }
}

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** Writes whole pages of a block, those that are zero as such. `offset` is where the first lies in the block. */
export function writePages(writer: StateWriter, block: string, offset: number, bytes: Buffer): void {
  assert(bytes.length % PAGE_BYTES === 0, "memory blocks are carried by whole pages");
  for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
    const isZero = bytes.compare(ZERO_PAGE, 0, PAGE_BYTES, at, at + PAGE_BYTES) === 0;
    writer.page(block, offset + at, isZero ? PAGE_ZERO : PAGE_DATA);
    if (isZero) writer.u8(0);
    else writer.bytes(bytes.subarray(at, at + PAGE_BYTES));
  }
}

/** Ends the `ram` section. */
export function writeMemoryEnd(writer: StateWriter): void {
  writer.u64(END_OF_SECTION);
  writer.u8(SECTION_FOOTER);
  writer.u32(RAM_SECTION_ID);
}

/**
 * Writes the devices of a saved state, without the user-mode network's own section (`slirp`). That one holds no more than its
 * address leases, and an emulator with another kind of network would refuse the whole state for it; a child's network
 * is chosen afresh.
 * @throws GuestError `bad-device-state` when this is not what the emulator saves.
 */
export function writeDevices(writer: StateWriter, saved: Buffer): void {
  if (
    saved.length < MAGIC.length + 1 ||
    !saved.subarray(0, MAGIC.length).equals(MAGIC) ||
    saved.at(-1) !== END_OF_STREAM
  ) {
    throw new GuestError("bad-device-state", "what the emulator saved is not a device state");
  }
  const skipped = findSection(saved, "slirp");
  if (skipped === undefined) return writer.bytes(saved.subarray(MAGIC.length));
  writer.bytes(saved.subarray(MAGIC.length, skipped.start));
  writer.bytes(saved.subarray(skipped.end));
}

/** Whether a section of a device, or the end of the stream, starts here. */
function startsSection(saved: Buffer, at: number): boolean {
  if (saved[at] === END_OF_STREAM) return at === saved.length - 1;
  const nameBytes = saved[at + 5];
  if (saved[at] !== SECTION_FULL || nameBytes === undefined || nameBytes === 0) return false;
  const name = saved.subarray(at + 6, at + 6 + nameBytes);
  return name.length === nameBytes && name.every((byte) => byte > 0x20 && byte < 0x7f);
}

/**
 * Where a section of a device begins and ends. Sections have no length, so its end is the footer with its own number that is
 * followed by another section.
 * @throws GuestError `bad-device-state` when too many places look like it.
 */
function findSection(saved: Buffer, name: string): { start: number; end: number } | undefined {
  let places = 0;
  const notePlace = () => {
    places += 1;
    if (places <= MAX_PLACES) return;
    const message = `the saved device state has more than ${MAX_PLACES} places that look like its section ${name}`;
    throw new GuestError("bad-device-state", message);
  };
  const head = Buffer.concat([Buffer.from([name.length]), Buffer.from(name), Buffer.alloc(4)]);
  for (let at = saved.indexOf(head); at !== -1; at = saved.indexOf(head, at + 1)) {
    notePlace();
    const start = at - 5;
    if (start < MAGIC.length || !startsSection(saved, start)) continue;
    const footer = Buffer.concat([Buffer.from([SECTION_FOOTER]), saved.subarray(start + 1, at)]);
    for (let end = saved.indexOf(footer, at); end !== -1; end = saved.indexOf(footer, end + 1)) {
      notePlace();
      if (startsSection(saved, end + footer.length)) return { start, end: end + footer.length };
    }
  }
  return undefined;
}

/**
 * The machine type a composed state is for.
 * @throws GuestError `bad-device-state` when it is not a composed state.
 */
export function machineOf(state: Uint8Array): string {
  const bytes = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  const headBytes = MAGIC.length + 5;
  const sound =
    bytes.length >= headBytes &&
    bytes.subarray(0, MAGIC.length).equals(MAGIC) &&
    bytes[MAGIC.length] === CONFIGURATION;
  const nameBytes = sound ? bytes.readUInt32BE(MAGIC.length + 1) : 0;
  if (!sound || nameBytes === 0 || nameBytes > MAX_NAME_BYTES || bytes.length < headBytes + nameBytes) {
    throw new GuestError(
      "bad-device-state",
      "the bytes are not a device state: they do not begin with its magic and configuration",
    );
  }
  return bytes.toString("latin1", headBytes, headBytes + nameBytes);
}
