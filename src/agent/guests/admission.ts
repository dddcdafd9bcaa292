import { readdirSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { AgentError } from "../errors.js";

const MIB = 1024 * 1024;

/** What statfs(2) calls tmpfs (linux/magic.h). Only shared memory can be write-protected and filled by userfaultfd. */
const TMPFS_MAGIC = 0x01021994;

/** Room on a file system, and what of it lies below the directory of guest memory. */
export interface MemoryRoom {
  totalBytes: number;
  freeBytes: number;
  ownBytes: number;
}

/** Memory set aside for one emulator, until it is released. */
export interface Reservation {
  readonly bytes: number;
  /** May be called twice. */
  release(): void;
}

/**
 * Decides whether another emulator's memory fits. Preallocating it is no way out (a page in the page cache is not missing,
 * so a child could not be filled): every emulator, warm or guest, counts with the whole of its configured memory from before it starts until
 * its memory file is gone, however little it has touched.
 */
export class Admission {
  readonly #limitBytes: number;
  readonly #room: () => MemoryRoom;
  readonly #sharedChildPercent: number;
  #reservedBytes = 0;

  /** @param limitBytes undefined: what the file system has, less `reserveBytes`. */
  constructor(options: {
    limitBytes: number | undefined;
    reserveBytes: number;
    room: () => MemoryRoom;
    sharedChildPercent?: number;
  }) {
    this.#sharedChildPercent = options.sharedChildPercent ?? 100;
    this.#room = options.room;
    this.#limitBytes = options.limitBytes ?? Math.max(0, options.room().totalBytes - options.reserveBytes);
  }

  /** What an emulator takes; one that shares its parent's memory less, for the pages that either of them writes. */
  bytesFor(memoryBytes: number, { shares }: { shares: boolean }): number {
    return shares ? Math.ceil((memoryBytes * this.#sharedChildPercent) / 100) : memoryBytes;
  }

  /** The most memory all emulators may have. */
  get limitBytes(): number {
    return this.#limitBytes;
  }

  /** What is set aside now. */
  get reservedBytes(): number {
    return this.#reservedBytes;
  }

  /** Bytes another emulator could have. */
  get freeBytes(): number {
    const { freeBytes, ownBytes } = this.#room();
    return Math.max(0, Math.min(this.#limitBytes, freeBytes + ownBytes) - this.#reservedBytes);
  }

  fits(bytes: number): boolean {
    return bytes <= this.freeBytes;
  }

  /**
   * Sets memory aside.
   * @param what is named in the refusal, such as `guest web`.
   * @throws AgentError `no-room` with the figures.
   */
  reserve(bytes: number, what: string): Reservation {
    if (!this.fits(bytes)) throw this.#refusal(bytes, what);
    return this.adopt(bytes);
  }

  /** Counts memory that an emulator found at start already has, whether it fits or not. */
  adopt(bytes: number): Reservation {
    this.#reservedBytes += bytes;
    let held = true;
    return {
      bytes,
      release: () => {
        if (held) this.#reservedBytes -= bytes;
        held = false;
      },
    };
  }

  #refusal(bytes: number, what: string): AgentError {
    // Only a tenant's guest has that in its name, and what others take is not for its tenant to know, who is told this in many wrappings.
    if (what.includes("@")) {
      const message = `${what} needs ${mib(bytes)} MiB of memory, which this host has not left: remove a guest, or choose another host`;
      return new AgentError("no-room", message);
    }
    const { freeBytes, ownBytes } = this.#room();
    const limited = this.#limitBytes <= freeBytes + ownBytes;
    const bound = limited
      ? `the limit is ${mib(this.#limitBytes)} MiB`
      : `the memory directory's file system has room for ${mib(freeBytes + ownBytes)} MiB`;
    const cure = limited ? "raise limits.memoryMib (--memory-limit-mib)" : "make room on that file system";
    return new AgentError(
      "no-room",
      `${what} needs ${mib(bytes)} MiB of memory, but ${bound} and ${mib(this.#reservedBytes)} MiB are taken: ` +
        `remove a guest, choose another host, or ${cure}`,
    );
  }
}

/** Whether the kernel can say, page by page, what is written to memory in this directory, and what of it is missing. */
function isTracked(directory: string): boolean {
  return statfsSync(directory).type === TMPFS_MAGIC;
}

/**
 * Looks at the directory that holds guests' memory files.
 * @throws AgentError `bad-configuration` when it does not lie on tmpfs, unless any file system will do.
 */
export function checkMemoryDirectory(directory: string, wanted: "tmpfs" | "any"): void {
  if (wanted === "any" || isTracked(directory)) return;
  throw new AgentError(
    "bad-configuration",
    `memoryDirectory: ${directory} must lie on tmpfs (such as /dev/shm/ramet), because only shared memory can be tracked page by page; ` +
      'with "memoryFileSystem": "any" guests run there that are not forked or migrated',
  );
}

/** @throws AgentError `refused` where guests' memory is not on tmpfs. */
export function requireTracked({ memory }: { memory: string }, doing: string): void {
  if (isTracked(memory)) return;
  throw new AgentError(
    "refused",
    `no guest can be ${doing} this host: its memoryDirectory ${memory} is not on tmpfs (memoryFileSystem is "any"), and only there memory can be tracked page by page`,
  );
}

/** Room for guest memory in `directory`, as the kernel counts it. Each guest has a directory there with its file `ram`. */
export function measureRoom(directory: string): MemoryRoom {
  const { bsize, blocks, bavail } = statfsSync(directory);
  let ownBytes = 0;
  for (const guest of readdirSync(directory, { withFileTypes: true })) {
    if (!guest.isDirectory()) continue;
    ownBytes += (statSync(join(directory, guest.name, "ram"), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  }
  return { totalBytes: blocks * bsize, freeBytes: bavail * bsize, ownBytes };
}

function mib(bytes: number): number {
  return Math.round(bytes / MIB);
}

/** The admission a configuration asks for. */
export function admissionOf(
  limits: { memoryMib?: number | undefined; memoryReserveMib: number; sharedChildPercent: number },
  memoryDirectory: string,
): Admission {
  return new Admission({
    limitBytes: limits.memoryMib === undefined ? undefined : limits.memoryMib * MIB,
    reserveBytes: limits.memoryReserveMib * MIB,
    room: () => measureRoom(memoryDirectory),
    sharedChildPercent: limits.sharedChildPercent,
  });
}
