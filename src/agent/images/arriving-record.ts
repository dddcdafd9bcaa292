import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { messageOf, TENANT_PATTERN, type Log } from "../../base/index.js";
import { MAX_DISK_BYTES } from "../../disk/index.js";
import { writeAtomically } from "../store/files.js";

const SUFFIX = ".json";

const originSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("host"), name: z.string().max(255), url: z.string().max(255) }),
  z.strictObject({ kind: z.literal("library"), directory: z.string().max(4095) }),
]);

/** Where an image may be had: from another host's agent, or from a directory that is copied from. */
export type KnownOrigin = z.infer<typeof originSchema>;

const instanceShape = {
  tenant: z.string().regex(TENANT_PATTERN),
  identifier: z.string().max(63).exactOptional(),
};

const recordSchema = z.strictObject({
  version: z.literal(1),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  sizeBytes: z.int().min(1).max(MAX_DISK_BYTES),
  ...instanceShape,
  /** Other tenants whose guests have come to run on it meanwhile, and what each calls it. */
  alsoFor: z.array(z.strictObject(instanceShape)).exactOptional(),
  /** What its socket and its file are called: nobody else is told. */
  key: z.uuid(),
  origins: z.array(originSchema).max(64),
  sinceMs: z.number().min(0),
});

/** What is kept of an image that guests run on before all of it is here. */
export type ArrivingRecord = z.infer<typeof recordSchema>;

/** The tenants that have the image when all of it is here, the one it was begun for first, with what each calls it. */
export function instancesIn(record: ArrivingRecord): { tenant: string; identifier?: string }[] {
  const { tenant, identifier, alsoFor = [] } = record;
  return [{ tenant, ...(identifier === undefined ? {} : { identifier }) }, ...alsoFor];
}

/** The records of images on their way, `<digest>.json` each: they outlive the agent, as emulators do. */
export class ArrivingRecords {
  readonly #directory: string;
  readonly #log: Log;

  constructor(options: { directory: string; log: Log }) {
    this.#directory = options.directory;
    this.#log = options.log;
  }

  /** What an earlier agent has left; what makes no sense is left as it is. */
  async load(): Promise<ArrivingRecord[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const records: ArrivingRecord[] = [];
    for (const name of (await readdir(this.#directory)).sort()) {
      if (!name.endsWith(SUFFIX)) continue;
      try {
        records.push(recordSchema.parse(JSON.parse(await readFile(join(this.#directory, name), "utf8"))));
      } catch (error) {
        this.#log.error(
          { name, problem: messageOf(error) },
          "an image on its way is left as it is: it cannot be read",
        );
      }
    }
    return records;
  }

  /** The digests of all there are, also of those that make no sense. */
  async digests(): Promise<Set<string>> {
    const names = await readdir(this.#directory);
    return new Set(
      names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length)),
    );
  }

  /** Replaces a record in one step. */
  async save(record: ArrivingRecord): Promise<void> {
    await writeAtomically(this.#pathOf(record), `${JSON.stringify(record, undefined, 2)}\n`);
  }

  /** May be called twice. */
  async remove(record: Pick<ArrivingRecord, "digest">): Promise<void> {
    await rm(this.#pathOf(record), { force: true });
  }

  #pathOf({ digest }: Pick<ArrivingRecord, "digest">): string {
    return join(this.#directory, `${digest}${SUFFIX}`);
  }
}
