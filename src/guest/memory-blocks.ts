/**
 * The emulator's memory blocks besides guest memory: firmware, tables, flash. They are part of a guest's state, but the
 * emulator saves them only together with guest memory. So their contents are read from its process.
 */
import { readSync } from "node:fs";
import { PAGE_BYTES } from "../base/index.js";
import { MAIN_MEMORY } from "./command-line.js";
import { GuestError } from "./errors.js";
import { MAX_DEVICE_STATE_BYTES } from "./limits.js";

/**
 * How a block is carried:
 * - `fixed`: neither guest nor devices can write to it after the reset that filled it, and every reset fills it with the same, so
 *   it may be read at any time. Firmware is: the x86 machines map it read-only to the guest (QEMU, hw/i386/x86.c).
 * - `changing`: small, and written by the emulator when firmware reads its tables (QEMU, acpi_build_update). Read in the pause.
 * - `sparse`: large, mostly never touched, and writable by the guest (flash). Only pages that exist are read, in the pause.
 */
export type BlockKind = "fixed" | "changing" | "sparse";

/** A block as the emulator lists it. */
export interface ListedBlock {
  name: string;
  /** Bytes in use; this is what a stream carries. */
  usedBytes: number;
  /** Bytes it may grow to; this is what is mapped. */
  totalBytes: number;
  /** Where it is mapped in the emulator's process; emulators before version 8 do not tell. */
  address?: number;
}

/** A block whose place is known. */
export interface MemoryBlock extends ListedBlock {
  kind: BlockKind;
  address: number;
}

/** A line of /proc/PID/maps that matters here. */
interface Mapping {
  start: number;
  end: number;
  permissions: string;
  anonymous: boolean;
}

const KINDS: readonly [RegExp, BlockKind][] = [
  [/^pc\.(bios|rom)$/, "fixed"],
  [/^\/rom@/, "changing"],
  [/^virt\.flash[01]$/, "sparse"],
];

/** Where the guest sees blocks that are alike in size, so that the emulator can be asked for their place. */
const GUEST_ADDRESS: Readonly<Record<string, string>> = { "virt.flash0": "0x0", "virt.flash1": "0x4000000" };

/** What the emulator aligns memory blocks to on Linux (QEMU, QEMU_VMALLOC_ALIGN), and the guard page it puts behind. */
const BLOCK_ALIGNMENT_BYTES = 2 * 1024 * 1024;

/** Most bytes of one block, and of those together that are read whole. The largest, flash of the `virt` machine, has 64 MiB. */
const MAX_BLOCK_BYTES = MAX_DEVICE_STATE_BYTES;

const PAGEMAP_ENTRY_BYTES = 8;
/** Bits of the highest byte of an entry (Linux, Documentation/admin-guide/mm/pagemap.rst): present, or swapped out. */
const PAGEMAP_EXISTS = 0xc0;

/**
 * Reads the answer to `info ramblock`.
 * @throws GuestError `protocol` when it is no table of blocks.
 */
export function parseBlockList(text: string): ListedBlock[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const withAddress = lines[0]?.includes("HVA") === true;
  return lines.slice(1).map((line) => {
    const found =
      /^\s*(\S+)\s+\d+ \SiB\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s+0x([0-9a-f]+))?/.exec(line);
    const [name, used, total, address] = found?.slice(1) ?? [];
    if (
      name === undefined ||
      used === undefined ||
      total === undefined ||
      (withAddress && address === undefined)
    ) {
      throw new GuestError(
        "protocol",
        `the emulator's list of memory blocks has a line that is not understood: ${line}`,
      );
    }
    const block: ListedBlock = { name, usedBytes: parseInt(used, 16), totalBytes: parseInt(total, 16) };
    if (address !== undefined) block.address = parseInt(address, 16);
    const numbers = [block.usedBytes, block.totalBytes, block.address ?? 0];
    if (block.usedBytes <= block.totalBytes && numbers.every(Number.isSafeInteger)) return block;
    throw new GuestError("protocol", `the emulator's memory block ${name} has impossible numbers: ${line}`);
  });
}

/**
 * How a block is carried.
 * @throws GuestError `unsupported-memory` for a block nobody has thought about: better no fork than a child that lacks something.
 */
export function kindOf(name: string): BlockKind {
  const found = KINDS.find(([pattern]) => pattern.test(name));
  if (found !== undefined) return found[1];
  throw new GuestError(
    "unsupported-memory",
    `the emulator keeps memory named ${name} for this guest, which cannot be carried to a child`,
  );
}

/**
 * Every block but guest memory itself. They are read into the agent's memory, so what an emulator may list is bounded.
 * @throws GuestError `unsupported-memory`.
 */
export function blocksToCarry(blocks: readonly ListedBlock[]): ListedBlock[] {
  const carried = blocks.filter((block) => block.name !== MAIN_MEMORY);
  const wholeBytes = carried
    .filter((block) => kindOf(block.name) !== "sparse")
    .reduce((total, block) => total + block.usedBytes, 0);
  const fits = wholeBytes <= MAX_BLOCK_BYTES && carried.every((block) => block.usedBytes <= MAX_BLOCK_BYTES);
  if (fits && new Set(carried.map((block) => block.name)).size === carried.length) return carried;
  throw new GuestError(
    "unsupported-memory",
    `the emulator lists memory besides the guest's that cannot be carried to a child: more than ${MAX_BLOCK_BYTES} bytes, or one name twice`,
  );
}

function parseMappings(maps: string): Mapping[] {
  return maps
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [range = "", permissions = "", , , inode = "", path] = line.split(/ +/);
      const [start = "", end = ""] = range.split("-");
      const anonymous = inode === "0" && (path === undefined || path === "");
      return { start: parseInt(start, 16), end: parseInt(end, 16), permissions, anonymous };
    });
}

/**
 * Where emulators that do not tell have mapped a block, by what QEMU does for each (util/mmap-alloc.c): an anonymous mapping of
 * exactly the block's size, aligned to 2 MiB, with one guard page directly behind.
 * @returns every place that fits.
 */
export function candidatesFor(block: ListedBlock, maps: string): number[] {
  const mappings = parseMappings(maps);
  const mappedBytes = Math.ceil(block.totalBytes / PAGE_BYTES) * PAGE_BYTES;
  return mappings
    .filter((mapping, index) => {
      const guard = mappings[index + 1];
      return (
        mapping.anonymous &&
        mapping.permissions === "rw-p" &&
        mapping.start % BLOCK_ALIGNMENT_BYTES === 0 &&
        mapping.end - mapping.start === mappedBytes &&
        guard?.start === mapping.end &&
        guard.permissions === "---p" &&
        guard.end - guard.start === PAGE_BYTES
      );
    })
    .map((mapping) => mapping.start);
}

/** The command that asks for a block's place by where the guest sees it; undefined when that is not fixed. */
export function placeQuestion(block: ListedBlock): string | undefined {
  const address = GUEST_ADDRESS[block.name];
  return address === undefined ? undefined : `gpa2hva ${address}`;
}

/** Reads the answer to `placeQuestion`; undefined when the guest sees something else there at the moment. */
export function parsePlace(block: ListedBlock, text: string): number | undefined {
  const found = /^Host virtual address for 0x[0-9a-f]+ \((.+)\) is 0x([0-9a-f]+)/.exec(text.trim());
  return found !== null && found[1] === block.name ? parseInt(found[2] as string, 16) : undefined;
}

/** Reads exactly `into.length` bytes of a process's memory. `memory` is an open /proc/PID/mem. */
export function readMemory(memory: number, address: number, into: Uint8Array): void {
  for (let done = 0; done < into.length;) {
    const got = readSync(memory, into, done, into.length - done, address + done);
    if (got === 0) throw new GuestError("gone", "the emulator's memory ended while it was read");
    done += got;
  }
}

/**
 * The runs of a block's pages that exist. A page that was never touched is zero, and zero in a fresh emulator too.
 * @param pagemap an open /proc/PID/pagemap.
 */
export function existingPages(pagemap: number, block: MemoryBlock): { first: number; count: number }[] {
  const pages = Math.ceil(block.usedBytes / PAGE_BYTES);
  const entries = Buffer.allocUnsafe(pages * PAGEMAP_ENTRY_BYTES);
  readMemory(pagemap, (block.address / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES, entries);
  const runs: { first: number; count: number }[] = [];
  for (let page = 0; page < pages; page += 1) {
    if (((entries[page * PAGEMAP_ENTRY_BYTES + 7] as number) & PAGEMAP_EXISTS) === 0) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === page) last.count += 1;
    else runs.push({ first: page, count: 1 });
  }
  return runs;
}
