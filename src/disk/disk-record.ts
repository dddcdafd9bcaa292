import { z } from "zod";
import { DEFAULT_TENANT, isSame, messageOf, TENANT_PATTERN } from "../base/index.js";
import { DiskError } from "./errors.js";
import { MAX_DISK_BYTES, SECTOR_BYTES } from "./limits.js";

const parentSchema = z.union([
  z.strictObject({ image: z.string().regex(/^[0-9a-f]{64}$/) }),
  z.strictObject({ disk: z.uuid() }),
]);

const holderSchema = z.strictObject({
  kind: z.enum(["certificate", "key", "local"]),
  name: z.string().max(4096),
});

const loanSchema = z.strictObject({ transfer: z.int().min(1), holder: holderSchema });

/** Another host that reads the file of a frozen disk, for the child of a transfer. */
export type DiskLoan = z.infer<typeof loanSchema>;

const arrivingSchema = z.strictObject({
  ...loanSchema.shape,
  url: z.string().max(255),
  host: z.string().max(255),
});

/** Where a disk's file comes from, until all of it is here and nobody reads it another way. */
export type DiskArrival = z.infer<typeof arrivingSchema>;

const recordSchema = z.strictObject({
  version: z.literal(1),
  id: z.uuid(),
  /** What it stands on: a base disk by its digest, or another differencing disk. Absent: it has all its content itself. */
  parent: parentSchema.exactOptional(),
  /** Whose guest it was made for; absent for the tenant `default`. It outlives that guest. */
  tenant: z.string().regex(TENANT_PATTERN).exactOptional(),
  sizeBytes: z.int().min(SECTOR_BYTES).max(MAX_DISK_BYTES).multipleOf(SECTOR_BYTES),
  /** The guest whose emulator may write it; absent once nobody may. */
  writer: z.uuid().exactOptional(),
  /** It has, or had, others on it, and is never written again. */
  frozen: z.boolean(),
  arriving: arrivingSchema.exactOptional(),
  /** The directory that several hosts have in which its file lies, until it is brought to this host's own. */
  sharedAt: z.string().startsWith("/").max(1024).exactOptional(),
  /** The guest that wrote it on a host that was lost, and is kept here: it stays for as long as that guest, also when nobody stands on it yet. */
  adoptedFor: z.uuid().exactOptional(),
  /** Other hosts that read its file: it stays for as long as there is one. */
  lent: z.array(loanSchema).exactOptional(),
  createdAtMs: z.number().min(0),
});

/** What is kept of a differencing disk beside its content. */
export type DiskRecord = z.infer<typeof recordSchema>;
export type DiskParent = z.infer<typeof parentSchema>;

/** Whose a disk is. */
export function tenantOfDisk({ tenant = DEFAULT_TENANT }: Pick<DiskRecord, "tenant">): string {
  return tenant;
}

/** Whether a disk is a tenant's; without a tenant, whether it is anybody's. */
export function isDiskOf(record: Pick<DiskRecord, "tenant">, tenant: string | undefined): boolean {
  return tenant === undefined || tenantOfDisk(record) === tenant;
}

/** A tenant as a record has it. */
export function recordedTenant(tenant: string | undefined): Pick<DiskRecord, "tenant"> {
  return tenant === undefined || tenant === DEFAULT_TENANT ? {} : { tenant };
}

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

/** Whether another host reads the disk for this transfer. */
export function isLentTo({ lent = [] }: DiskRecord, loan: DiskLoan): boolean {
  return lent.some((each) => each.transfer === loan.transfer && isSame(each.holder, loan.holder));
}

/** What is known of a disk that one reader fewer needs. */
export function withoutLoan({ lent = [], ...record }: DiskRecord, loan: DiskLoan): DiskRecord {
  const left = lent.filter((each) => each.transfer !== loan.transfer || !isSame(each.holder, loan.holder));
  return left.length === 0 ? record : { ...record, lent: left };
}
