import { PAGE_BYTES } from "../../base/index.js";
import { CopiesFile } from "../../memory/index.js";
import { Instant, type PageDigests, type TrackedMemory } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { WorkingSetFile } from "./working-set-file.js";
import {
  keepDigests,
  readDigests,
  removeDigests,
  type ParentRecord,
  type RecordFile,
} from "./transfer-record.js";

const MIB = 1024 * 1024;

/**
 * What the parent's side of a fork or migration keeps beside the guest's memory, for a new agent to go on with: temporary copies, digests, a record for each
 * child. One owner, which removes all of it at the end, but the working set, which is for later children, too.
 */
export class ParentKeep {
  readonly copies: CopiesFile;
  readonly workingSet: WorkingSetFile;
  readonly #directory: string;
  readonly #pageCount: number;
  readonly #records: RecordFile<ParentRecord>[] = [];
  #left = false;

  private constructor(services: Services, guest: Guest, copies: CopiesFile) {
    const { paths, clock } = services;
    const { pageCount } = copies;
    this.#directory = paths.guestMemory(guest.id);
    this.copies = copies;
    this.#pageCount = pageCount;
    this.workingSet = new WorkingSetFile({
      path: paths.workingSet(guest.id),
      pageCount,
      clock,
      log: guest.log,
    });
  }

  /** @throws MemoryError `bad-file`. */
  static create(services: Services, guest: Guest): ParentKeep {
    const { paths } = services;
    const copies = CopiesFile.create(paths.copies(guest.id), guest.live.memory.pageCount);
    return new ParentKeep(services, guest, copies);
  }

  /** What an earlier agent kept. @throws MemoryError `bad-file`. */
  static open(services: Services, guest: Guest, records: readonly RecordFile<ParentRecord>[]): ParentKeep {
    const { paths } = services;
    const copies = CopiesFile.open(paths.copies(guest.id), guest.config.memoryBytes / PAGE_BYTES);
    const keep = new ParentKeep(services, guest, copies);
    keep.#records.push(...records);
    return keep;
  }

  /** Owns another child's record from here on. */
  add(record: RecordFile<ParentRecord>): RecordFile<ParentRecord> {
    this.#records.push(record);
    return record;
  }

  /** Throws the file system's error. */
  keepDigests(digests: PageDigests): void {
    keepDigests(this.#directory, digests);
  }

  /** The digests at the instant, where any child is to compare. @throws AgentError `bad-record`. */
  digests(): PageDigests | undefined {
    if (!this.#records.some(({ record }) => record.verify)) return undefined;
    return readDigests(this.#directory, this.#pageCount);
  }

  /** From here on everything stays as it is, for the next agent. */
  leave(): void {
    this.#left = true;
    for (const record of this.#records) record.leave();
    this.workingSet.close();
    this.copies.close();
  }

  /** Removes all of it; does nothing once it was left. May be called twice. */
  remove(): void {
    if (this.#left) return;
    this.workingSet.close();
    this.copies.remove();
    removeDigests(this.#directory);
    for (const record of this.#records) record.remove();
  }
}

interface InstantParts {
  copies: CopiesFile;
  /** False for a parent that is stopped for good, or has ended. */
  tracking: boolean;
  /** Other than that of the guest's emulator. */
  memory?: TrackedMemory;
}

/** The instant of a guest that is about to be forked or migrated. */
export function makeInstant(services: Services, guest: Guest, parts: InstantParts): Instant {
  return new Instant(optionsFor(services, guest, parts));
}

/** The instant an earlier agent had frozen. Errors as `Instant.recover`. */
export function recoverInstant(services: Services, guest: Guest, parts: InstantParts): Instant {
  return Instant.recover(optionsFor(services, guest, parts));
}

function optionsFor(services: Services, guest: Guest, parts: InstantParts) {
  const { copiesMib, stallMs } = services.configuration.limits;
  return {
    ...parts,
    memory: parts.memory ?? guest.live.shared,
    copyBudgetBytes: copiesMib * MIB,
    stallDeadlineMs: stallMs,
    clock: services.clock,
    log: guest.log,
  };
}

/** Lets go of the parent's side of a fork or migration when the agent ends: nobody who waits is let through, and the next agent goes on. */
export function detachParent(parts: {
  children: readonly { detach(): void }[];
  instant: Instant;
  keep: ParentKeep;
}): void {
  for (const child of parts.children) child.detach();
  parts.instant.detach();
  parts.keep.leave();
}
