import { z } from "zod";
import { TENANT_PATTERN } from "../../base/index.js";
import { MAX_LISTED } from "../limits.js";
import { arrival } from "./disk.js";
import { count, filePath, message, optional, sha256, u32, wallMs } from "./common.js";

export const tenantName = z
  .string()
  .regex(
    TENANT_PATTERN,
    "must be 1 to 63 lower-case letters, digits, dots, dashes or underscores, with a letter or digit first",
  );

/** What an image may be called; the agent refuses what could be taken for the start of a digest, too. */
export const imageIdentifier = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,62}$/,
    "must be 1 to 63 lower-case letters, digits, dots, dashes or underscores, with a letter or digit first",
  );

/** An identifier, a digest, or at least 8 of its first digits. */
export const imageReference = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,63}$/,
    "must be an image's identifier, or the first 8 or more digits of its digest",
  );

export const IMAGE_FORMATS = ["raw", "qcow2"] as const;

/** An image as a tenant has it. */
export const imageView = z.object({
  /** Absent when it was imported without one. */
  identifier: optional(z.string().max(63)),
  digest: sha256,
  sizeBytes: count,
  tenant: tenantName,
  sinceMs: wallMs,
  /** Whether disks of the tenant's guests stand on it, on any host that shares it. */
  isUsed: z.boolean(),
  /** What a check found wrong with it. */
  problem: optional(message),
  /** Guests run on it while it comes. */
  arriving: optional(arrival),
});
export type ImageView = z.infer<typeof imageView>;

/** An image as whoever runs the host has it. */
export const storedImageView = z.object({
  digest: sha256,
  sizeBytes: count,
  /** What its file takes. */
  allocatedBytes: count,
  directory: z.string().max(4095),
  owners: z
    .array(z.object({ tenant: z.string().max(63), identifier: optional(z.string().max(63)) }))
    .max(MAX_LISTED),
  /** Tenants with disks that stand on it, on any host. */
  usedBy: z.array(z.string().max(63)).max(MAX_LISTED),
  /** Other hosts that use it. */
  otherHosts: z.array(z.string().max(255)).max(MAX_LISTED),
  lastUsedMs: wallMs,
  problem: optional(message),
});
export type StoredImageView = z.infer<typeof storedImageView>;

const tenant = optional(tenantName);

/** With it, `image` events of this number come to the connection. */
const work = optional(u32);

const one = z.object({ image: imageView });
/** What came of an image before its pull was given up. */
const leftPull = z.object({
  digest: sha256,
  directory: z.string().max(4095),
  allocatedBytes: count,
  /** When something of it came last. */
  lastChangedMs: wallMs,
});
export type LeftPullView = z.infer<typeof leftPull>;

const stored = z.object({ images: z.array(storedImageView).max(MAX_LISTED) });

/** How far an import or a check is. */
export const imageWork = z.object({
  work: u32,
  /** Of an image that comes from another host: `pull`; `wait`, its host cannot be reached; `full`, there is no room. */
  phase: z.enum(["copy", "convert", "digest", "pull", "wait", "full"]),
  doneBytes: z.number().min(0),
  sizeBytes: count,
});

export const IMAGE_METHODS = {
  /** Reads a file of the agent's machine, as the agent. It ends when the connection does. */
  "image.import": {
    role: "client",
    params: z.strictObject({
      path: filePath,
      identifier: optional(imageIdentifier),
      tenant,
      format: optional(z.enum(IMAGE_FORMATS)),
      work,
    }),
    result: one,
  },
  "image.list": {
    role: "client",
    params: z.strictObject({ tenant }),
    result: z.object({ images: z.array(imageView).max(MAX_LISTED) }),
  },
  "image.show": {
    role: "client",
    params: z.strictObject({ reference: imageReference, tenant }),
    result: one,
  },
  /** Digests all of it again. It ends when the connection does. */
  "image.verify": {
    role: "client",
    params: z.strictObject({ reference: imageReference, tenant, work }),
    result: one,
  },
  /** Takes it from the tenant; its bytes stay until they are pruned. */
  "image.remove": {
    role: "client",
    params: z.strictObject({ reference: imageReference, tenant }),
    result: one,
  },
  /** Every image, with all who have and use it. */
  "image.stored": { role: "client", params: z.strictObject({}), result: stored },
  /** Removes the bytes of images nobody uses, and what came of images that nobody brings any more; those that were removed, or would be. */
  "image.prune": {
    role: "client",
    params: z.strictObject({
      unusedForMs: z.number().min(0),
      keepOwned: z.boolean().default(false),
      dryRun: z.boolean().default(false),
    }),
    result: stored.extend({ left: z.array(leftPull).max(MAX_LISTED) }),
  },
} as const;
