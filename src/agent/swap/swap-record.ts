import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { messageOf } from "../../base/index.js";
import { networkSchema } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import { readIfThere, syncDirectory, writeAtomically } from "../store/files.js";
import { exchanged, type Roles } from "./roles.js";

const roleSchema = z.strictObject({
  id: z.uuid(),
  name: z.string(),
  network: networkSchema,
  attached: z.boolean(),
});

/**
 * How far an exchange of roles is, for a new agent. `moving` until the child has production's place: it is given back then, unless only the child lives. `moved` from then on: names follow.
 */
const recordSchema = z.strictObject({
  version: z.literal(1),
  step: z.enum(["moving", "moved"]),
  /** As they were: of the guest that gives its role up first. */
  before: z.tuple([roleSchema, roleSchema]),
});
export type SwapRecord = z.output<typeof recordSchema>;

const RECORD_NAME = /^[0-9a-f-]{36}\.json$/;

/** The record of one exchange of roles, on disk: names and places outlive the machine. */
export class SwapFile {
  readonly before: Roles;
  step: SwapRecord["step"];
  readonly #directory: string;

  constructor(directory: string, { before, step }: Pick<SwapRecord, "step"> & { before: Roles }) {
    this.#directory = directory;
    this.before = before;
    this.step = step;
  }

  get path(): string {
    return join(this.#directory, `${this.before[0].id}.json`);
  }

  get after(): Roles {
    return exchanged(this.before);
  }

  has(id: string): boolean {
    return this.before.some((role) => role.id === id);
  }

  /** @throws AgentError `no-room` or the file system's error; what was written before holds then. */
  async write(step: SwapRecord["step"]): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const record = { version: 1, step, before: this.before };
    await writeAtomically(this.path, `${JSON.stringify(record, undefined, 2)}\n`);
    this.step = step;
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
    await syncDirectory(this.#directory);
  }
}

/** What an earlier agent left. `onProblem` is called with what cannot be read, which is left as it is. */
export async function readSwaps(
  directory: string,
  onProblem: (error: AgentError) => void,
): Promise<SwapFile[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const files: SwapFile[] = [];
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    if (!RECORD_NAME.test(name)) {
      await rm(path, { force: true });
      continue;
    }
    try {
      const { before, step } = recordSchema.parse(JSON.parse((await readIfThere(path)) ?? ""));
      files.push(new SwapFile(directory, { before, step }));
    } catch (cause) {
      const message = `${path} is not a swap's record of this version: ${messageOf(cause)}`;
      onProblem(new AgentError("bad-record", message, { cause }));
    }
  }
  return files;
}
