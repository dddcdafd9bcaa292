import { z } from "zod";
import { messageOf } from "../../base/index.js";
import { GUEST_STATES } from "../../control/index.js";
import { parseGuestConfig, SEATS, type GuestConfig } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { FormerChild } from "../store/former-children.js";
import { holderSchema } from "../store/holder.js";
import { readIfThere, writeAtomically } from "../store/files.js";

const bootFile = z.strictObject({
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  sizeBytes: z.int().min(1),
  /** The file its user named, for listings; the digest is what counts. */
  source: z.string(),
});

/** What is kept of a guest on disk, in one file that is replaced in one step. */
export const guestRecordSchema = z.strictObject({
  version: z.literal(1),
  /** `warm`: an emulator that waits for a guest; it does not outlive its agent. */
  state: z.enum([...GUEST_STATES, "warm"]),
  message: z.string().optional(),
  createdAtMs: z.number(),
  parent: z
    .strictObject({
      guest: z.string(),
      host: z.string(),
      /** Of a parent on the same host, which may come to have another name. */
      id: z.uuid().optional(),
      transfer: z.int(),
      /** Absent from records of earlier versions. */
      kind: z.enum(["fork", "migrate"]).optional(),
      /** It came to have all its memory. */
      complete: z.boolean().optional(),
      /** Who has the parent, and alone may command the child, as its certificate says. */
      holder: holderSchema.optional(),
    })
    .optional(),
  /** The migration that takes, or took, it away; kept until that is complete, or has not happened after all. */
  outgoing: z
    .strictObject({
      transfer: z.int(),
      host: z.string(),
      /** Where its child is commanded, by whom it was taken, and how long it runs on without a word from here. */
      url: z.string().optional(),
      holder: holderSchema.optional(),
      leaseMs: z.number().optional(),
      /** When the guest was stopped for it. */
      switchedAtMs: z.number().optional(),
      /** It was undone: the guest is to run here, whoever asks. */
      rolledBack: z.boolean().optional(),
    })
    .optional(),
  /** Whose memory its emulator has mapped privately, as a file on tmpfs that may be without a name by now. */
  sharing: z
    .strictObject({
      memory: z.uuid(),
      dev: z.int(),
      ino: z.int(),
      /** Every page is its own by now: it shares nothing any more, and may be tracked itself. */
      whole: z.literal(true).optional(),
    })
    .optional(),
  /** It is being removed: a new agent ends its emulator and removes what is left of it. */
  removing: z.literal(true).optional(),
  /** A child that is received and has an emulator that could not be told to run on: its user may. */
  standsStill: z.literal(true).optional(),
  /** Which of its two places its emulator is in; `run` when absent. */
  seat: z.enum(SEATS).optional(),
  /** False: its network device leads nowhere. */
  attached: z.boolean(),
  boot: z.strictObject({ kernel: bootFile.optional(), initrd: bootFile.optional() }),
  config: z.unknown().transform((value) => parseGuestConfig(value)),
});

export type GuestRecord = z.output<typeof guestRecordSchema>;
export type RecordedBootFile = z.output<typeof bootFile>;

/**
 * Reads a guest's record.
 * @returns undefined when there is none: the guest was never made, or was being removed.
 * @throws AgentError `bad-record` when it is not what this version writes.
 */
export async function readRecord(path: string): Promise<GuestRecord | undefined> {
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  try {
    return guestRecordSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new AgentError(
      "bad-record",
      `${path} is not a guest's record of this version: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

export async function writeRecord(path: string, record: GuestRecord): Promise<void> {
  await writeAtomically(path, `${JSON.stringify(record, undefined, 2)}\n`);
}

/** What is to be remembered of a guest that came here by a migration and ran here; undefined for any other. */
export function formerChildOf(record: Readonly<GuestRecord>): Omit<FormerChild, "leftAtMs"> | undefined {
  const { parent, outgoing, config } = record;
  if (parent === undefined || parent.kind === "fork") return undefined;
  const { transfer, holder, kind } = parent;
  return {
    transfer,
    guest: config.name,
    // Of an earlier version's child it is not known.
    complete: parent.complete ?? kind === undefined,
    ...(holder === undefined ? {} : { holder }),
    ...(outgoing === undefined ? {} : { movedTo: outgoing.host }),
  };
}

/** Kernel and initrd, as far as there are such: a guest without them boots from its first disk. */
export function bootFilesOf<File>({
  kernel,
  initrd,
}: {
  kernel?: File | undefined;
  initrd?: File | undefined;
}): File[] {
  return [kernel, initrd].filter((file) => file !== undefined);
}

/** The digests a guest needs to boot again. */
export function digestsOf(record: GuestRecord): string[] {
  return bootFilesOf(record.boot).map(({ sha256 }) => sha256);
}

export type { GuestConfig };
