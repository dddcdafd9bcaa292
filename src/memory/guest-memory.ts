import { readFileSync } from "node:fs";
import { assert, codeOf, type Log } from "../base/index.js";
import { takeUserfault } from "./descriptors.js";
import { MemoryError } from "./errors.js";
import { FillableRegion } from "./fillable.js";
import { type FileIdentity, findMapping, findRegistration, readMaps } from "./mapping.js";
import { PrivateMemory } from "./process-memory.js";
import { RamFile } from "./ram-file.js";
import { TrackedRegion } from "./tracked.js";
import { type FaultMode, Userfault } from "./userfault.js";
import { WritableRegion } from "./writable.js";

/**
 * One emulator's memory, from its start (or its adoption by a new agent) to its end. It is a parent's or a child's at a
 * time: `track` and `fill` assert that the other one has been released. An emulator that maps another guest's memory file privately has no file of its own:
 * its memory is never filled, nor written before it runs.
 */
export class GuestMemory {
  readonly pageCount: number;
  readonly #pid: number;
  readonly #identity: FileIdentity;
  readonly #file: RamFile | PrivateMemory;
  readonly #userfault: Userfault;
  readonly #tracked: TrackedRegion;
  readonly #fillable: FillableRegion | undefined;
  #closed = false;

  private constructor(options: {
    pid: number;
    identity: FileIdentity;
    file: RamFile | PrivateMemory;
    userfault: Userfault;
  }) {
    const { userfault, file } = options;
    this.#pid = options.pid;
    this.#identity = options.identity;
    this.#file = file;
    this.#userfault = userfault;
    this.#tracked = new TrackedRegion(options);
    this.#fillable = file instanceof RamFile ? new FillableRegion({ userfault, file }) : undefined;
    this.pageCount = file.pageCount;
  }

  /**
   * Finds the memory of emulator `pid`, which runs under the preloaded library and has mapped the tmpfs file `ramPath`.
   * Registers nothing yet.
   * @throws MemoryError `gone`, `no-userfaultfd`, `not-mapped`, `bad-file`, `not-permitted`, `not-built` or `failed`.
   */
  static open(options: { pid: number; ramPath: string; log: Log }): GuestMemory {
    const { pid, ramPath, log } = options;
    const file = RamFile.open(ramPath);
    try {
      const mapping = findMapping(readMaps(pid), file);
      const userfault = new Userfault({ pid, mapping, fd: takeUserfault(pid) });
      log.debug(
        { pid, ramPath, pages: file.pageCount, areas: mapping.areaEnds.length },
        "guest memory found",
      );
      return new GuestMemory({ pid, identity: file, file, userfault });
    } catch (cause) {
      file.close();
      throw cause;
    }
  }

  /**
   * Finds the memory of emulator `pid`, which runs under the preloaded library and has mapped another guest's memory file privately. The file may have been
   * removed since.
   * @throws MemoryError `gone`, `no-userfaultfd`, `not-mapped`, `not-permitted`, `not-built` or `failed`.
   */
  static openPrivate(options: { pid: number; file: FileIdentity; log: Log }): GuestMemory {
    const { pid, log } = options;
    const { dev, ino, pageCount } = options.file;
    const identity = { dev, ino, pageCount };
    const mapping = findMapping(readMaps(pid), identity, "private");
    const file = new PrivateMemory({ pid, mapping });
    try {
      const userfault = new Userfault({ pid, mapping, fd: takeUserfault(pid) });
      log.debug({ pid, pages: pageCount }, "privately mapped guest memory found");
      return new GuestMemory({ pid, identity, file, userfault });
    } catch (cause) {
      file.close();
      throw cause;
    }
  }

  /** Which file on tmpfs it is, or was mapped from. */
  get file(): FileIdentity {
    const { dev, ino, pageCount } = this.#identity;
    return { dev, ino, pageCount };
  }

  /** The memory as a private mapping of another guest's; undefined for an emulator with a file of its own. */
  get private(): PrivateMemory | undefined {
    return this.#file instanceof PrivateMemory ? this.#file : undefined;
  }

  /** A descriptor of the memory file for another thread, which closes it; undefined for memory that has no file of its own. @throws MemoryError `gone` or `failed`. */
  shareFile(): number | undefined {
    return this.#file instanceof RamFile ? this.#file.share() : undefined;
  }

  /** The memory as a parent's. Always the same object. */
  tracked(): TrackedRegion {
    return this.#tracked;
  }

  /** The memory as a child's. Always the same object. */
  fillable(): FillableRegion {
    assert(this.#fillable !== undefined, "memory that is mapped privately is not filled");
    return this.#fillable;
  }

  /** Opens the memory to be written, of a child that does not run yet; the caller closes it. @throws MemoryError `bad-file`. */
  writable(): WritableRegion {
    assert(this.#file instanceof RamFile, "memory that is mapped privately is not written from outside");
    return new WritableRegion({ path: this.#file.path, pageCount: this.pageCount });
  }

  /**
   * What the emulator's memory is registered for, by whatever agent (proc(5), VmFlags of smaps). After adopting an emulator:
   * `missing` is a child to be filled on, `write-protect` a parent whose `release` lets its writers go. Slow with large
   * memories.
   * @throws MemoryError `gone`, `not-mapped` or `not-permitted`.
   */
  registration(): FaultMode | undefined {
    try {
      return findRegistration(readFileSync(`/proc/${this.#pid}/smaps`, "utf8"), this.#identity);
    } catch (cause) {
      if (cause instanceof MemoryError) throw cause;
      throw new MemoryError("gone", `cannot read /proc/${this.#pid}/smaps (${codeOf(cause)})`, { cause });
    }
  }

  /** Closes this process's descriptors. Does not release: what is registered then waits for the next agent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#userfault.close();
    this.#file.close();
  }
}
