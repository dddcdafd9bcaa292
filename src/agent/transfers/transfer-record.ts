import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { codeOf, messageOf, PAGE_HASH_BYTES } from "../../base/index.js";
import { METHODS } from "../../control/index.js";
import { PageDigests, type CompressionOptions, type FlowChange } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import { UNFINISHED_SUFFIX } from "../store/files.js";
import { holderSchema } from "../store/holder.js";
import { COPIES_NAME } from "../store/paths.js";

const transfer = z.int().min(1).max(0xffffffff);

/**
 * What the parent's side of a transfer is, for a new agent. Steps: `preparing` until the device state is out of the pause, in which a new agent lets the parent
 * run on; `told` from just before the child may be told to run; `paging` once it is known to run, or to be held; `complete` when nobody needs the parent.
 */
const parentRecordSchema = z.strictObject({
  version: z.literal(1),
  side: z.literal("parent"),
  transfer,
  kind: z.enum(["fork", "migrate"]),
  step: z.enum(["preparing", "told", "paging", "complete"]),
  /** What lets the child's page lanes in. */
  token: z.string().min(16).max(128),
  /** The child's agent, the name its user called it by, and the child's name there. */
  url: z.string().min(1),
  host: z.string(),
  peerGuest: z.string(),
  verify: z.boolean(),
  /** The child is held before its first instruction until somebody lets it run. */
  paused: z.boolean(),
  sweep: z.enum(["on", "held"]),
  /** How it begins, and whether that is for good (`lz4`, `none`) or until it was measured. Records of earlier agents say only the former. */
  compress: z.boolean(),
  compression: z.enum(["auto", "lz4", "none"]).optional(),
  rateLimitBytesPerSecond: z.int().optional(),
  /** Beside the other transfers of this host; absent is `normal`. */
  priority: z.enum(["high", "normal", "low"]).optional(),
  /** What the guest's children touch first goes ahead of the sweep. */
  workingSet: z.boolean().optional(),
  /** How long the child may be out of reach before it is given up; without it for ever. */
  linkDeadlineMs: z.int().min(1).optional(),
  /** Who the child's agent has shown itself to be, and alone may fetch pages; not known before it is reached. */
  holder: holderSchema.optional(),
  startedAtMs: z.number(),
});

/**
 * What the child's side is. `loading` includes the wait for the device state; `loaded` is held before its first instruction; `running` is written before
 * that, so a child that is only `loaded` has never run. A fork's child may instead run as soon as its emulator has loaded it: that is `starting`, from before the
 * emulator is told so until its agent knows that it runs. The record stays for as long as the child's memory, because its parent's agent may ask late.
 */
const childRecordSchema = z.strictObject({
  version: z.literal(1),
  side: z.literal("child"),
  transfer,
  params: METHODS["peer.prepare"].params,
  /** Who the parent's agent has shown itself to be, and alone may command the child and send its memory. */
  holder: holderSchema,
  step: z.enum(["loading", "loaded", "starting", "running"]),
  /** Agents that served it so far, less one; each dials with epochs of its own. */
  incarnation: z.int().min(0).max(0xffff),
  /** Every page is here: nothing is asked of the parent any more. */
  complete: z
    .strictObject({
      verify: z.strictObject({ checked: z.int().min(0), mismatches: z.int().min(0) }).optional(),
    })
    .optional(),
  /** When the parent's host was last heard of, in µs of the machine's monotonic clock, some seconds less exact; only for a migration. */
  heardUs: z.number().optional(),
  /** Why it will never be complete, though it ran and is kept. */
  failed: z.string().optional(),
  startedAtMs: z.number(),
});

const schemas = { parent: parentRecordSchema, child: childRecordSchema };

export type ParentRecord = z.output<typeof parentRecordSchema>;
export type ChildRecord = z.output<typeof childRecordSchema>;
type TransferRecord = ParentRecord | ChildRecord;

const NAME_PATTERN = /^transfer-(\d{1,10})-(parent|child)\.json$/;
const DIGESTS_NAME = "parent-digests";

/** The most lanes one agent dials for a child, and so the distance of the epochs of one agent from those of the next. */
export const EPOCHS_PER_AGENT = 65_536;

/**
 * One side of one transfer in a file of the guest's memory directory, on tmpfs: it is to outlive the agent, not the machine, so nothing is synced. Every
 * change is on disk when the call returns.
 */
export class RecordFile<Kept extends TransferRecord> {
  readonly #path: string;
  #record: Kept;
  #left = false;

  private constructor(path: string, record: Kept) {
    this.#path = path;
    this.#record = record;
  }

  /** Writes a new record. Throws the file system's error, such as ENOSPC. */
  static create<Kept extends TransferRecord>(directory: string, record: Kept): RecordFile<Kept> {
    const path = join(directory, `transfer-${record.transfer}-${record.side}.json`);
    const file = new RecordFile(path, record);
    file.#write();
    return file;
  }

  /** The file of a record that was read from it. */
  static opened<Kept extends TransferRecord>(path: string, record: Kept): RecordFile<Kept> {
    return new RecordFile(path, record);
  }

  get record(): Readonly<Kept> {
    return this.#record;
  }

  /** Replaces what changes, in one step. Throws the file system's error; the old record stays then. */
  update(change: Partial<Kept>): void {
    const before = this.#record;
    this.#record = { ...before, ...change };
    try {
      this.#write();
    } catch (error) {
      this.#record = before;
      throw error;
    }
  }

  /** From here on the record stays as it is: the next agent goes on with it. */
  leave(): void {
    this.#left = true;
  }

  /** The transfer is over on this side. Does nothing once the record was left. */
  remove(): void {
    if (!this.#left) rmSync(this.#path, { force: true });
    this.#left = true;
  }

  #write(): void {
    if (this.#left) return;
    const unfinished = `${this.#path}${UNFINISHED_SUFFIX}`;
    try {
      writeFileSync(unfinished, JSON.stringify(this.#record), { mode: 0o600 });
      renameSync(unfinished, this.#path);
    } catch (error) {
      rmSync(unfinished, { force: true });
      throw error;
    }
  }
}

/** The transfers an earlier agent left unfinished on a guest. */
export interface LeftTransfers {
  parents: RecordFile<ParentRecord>[];
  children: RecordFile<ChildRecord>[];
}

/**
 * Reads the records in a guest's memory directory.
 * @throws AgentError `bad-record` when one cannot be read or is not of this version.
 */
export function readTransferRecords(directory: string): LeftTransfers {
  const left: LeftTransfers = { parents: [], children: [] };
  for (const name of namesIn(directory)) {
    const [, , side] = NAME_PATTERN.exec(name) ?? [];
    if (side === undefined) continue;
    const path = join(directory, name);
    try {
      const record: unknown = JSON.parse(readFileSync(path, "utf8"));
      if (side === "parent") {
        left.parents.push(RecordFile.opened(path, schemas.parent.parse(record)));
      } else {
        left.children.push(RecordFile.opened(path, schemas.child.parse(record)));
      }
    } catch (cause) {
      const message = `${path} is not a transfer's record of this version: ${messageOf(cause)}`;
      throw new AgentError("bad-record", message, { cause });
    }
  }
  return left;
}

/** Whether the child may lack pages that are nowhere but with its parent. */
export function owesPages({ step }: ParentRecord): boolean {
  return step === "told" || step === "paging";
}

/**
 * Removes what no record of a guest speaks of: records that were being written when their agent ended, and, where there is no parent's record, what is kept
 * beside one.
 */
export function removeStray(directory: string, { parents }: LeftTransfers): void {
  const unfinished = `.json${UNFINISHED_SUFFIX}`;
  for (const name of namesIn(directory)) {
    const isKept = parents.length > 0 || (name !== COPIES_NAME && name !== DIGESTS_NAME);
    if (!isKept || name.endsWith(unfinished)) rmSync(join(directory, name), { force: true });
  }
}

/** Whether a child is to run, or runs. */
export function isToRun({ step }: Readonly<ChildRecord>): boolean {
  return step === "running" || step === "starting";
}

/** Whether a child may have executed instructions: its record says so before the first, and goes with its memory. */
export function mayHaveRun(directory: string, transfer: number): boolean {
  try {
    const child = readTransferRecords(directory).children.find(({ record }) => record.transfer === transfer);
    return child === undefined || child.record.step === "running";
  } catch {
    return true;
  }
}

/** Keeps the parent's digests at the instant for the next agent; those of an earlier instant are replaced. */
export function keepDigests(directory: string, digests: PageDigests): void {
  const path = join(directory, DIGESTS_NAME);
  writeFileSync(path, digests.slice(0, digests.pageCount), { mode: 0o600 });
}

/** What `keepDigests` kept. @throws AgentError `bad-record` when it is not there or not for so many pages. */
export function readDigests(directory: string, pageCount: number): PageDigests {
  const path = join(directory, DIGESTS_NAME);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new AgentError("bad-record", `the digests ${path} cannot be read (${codeOf(cause)})`, { cause });
  }
  if (bytes.length !== pageCount * PAGE_HASH_BYTES) {
    throw new AgentError("bad-record", `the digests ${path} are not for ${pageCount} pages`);
  }
  const digests = new PageDigests(pageCount);
  digests.setDigests(0, bytes);
  return digests;
}

/** Removes what the parent's side of a fork or migration keeps besides its records and copies. */
export function removeDigests(directory: string): void {
  rmSync(join(directory, DIGESTS_NAME), { force: true });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Whether a parent's machines compress what they send. */
export function compressionOf({ compress, compression }: Readonly<ParentRecord>): CompressionOptions {
  return { choice: compression ?? (compress ? "lz4" : "none"), first: compress };
}

/** How fast a parent's machines are to send. */
export function flowOf({ rateLimitBytesPerSecond, priority }: Readonly<ParentRecord>): FlowChange {
  return { rateBytesPerSecond: rateLimitBytesPerSecond, priority: priority ?? "normal" };
}
