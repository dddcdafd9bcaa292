import { z } from "zod";
import { messageOf } from "../base/index.js";
import { DiskError } from "./errors.js";
import { MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";

const parentSchema = z.union([
  z.strictObject({ image: z.string().regex(/^[0-9a-f]{64}$/) }),
  z.strictObject({ disk: z.uuid() }),
]);

const recordSchema = z.strictObject({
  version: z.literal(1),
  id: z.uuid(),
  /** What it stands on: a base disk by its digest, or another differencing disk. Absent: it has all its content itself. */
  parent: parentSchema.exactOptional(),
  sizeBytes: z.int().min(SECTOR_BYTES).max(MAX_DISK_BYTES).multipleOf(SECTOR_BYTES),
  /** The guest whose emulator may write it; absent once nobody may. */
  writer: z.uuid().exactOptional(),
  /** It has, or had, others on it, and is never written again. */
  frozen: z.boolean(),
  createdAtMs: z.number().min(0),
});

/** What is kept of a differencing disk beside its content. */
export type DiskRecord = z.infer<typeof recordSchema>;
export type DiskParent = z.infer<typeof parentSchema>;

/** @throws DiskError `bad-record`. */
export function parseDiskRecord(path: string, text: string): DiskRecord {
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new DiskError("bad-record", `${path} is not a disk's record of this version: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** The text of a record. */
export function formatDiskRecord(record: DiskRecord): string {
  return `${JSON.stringify(record, undefined, 2)}\n`;
}
