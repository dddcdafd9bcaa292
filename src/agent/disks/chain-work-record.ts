import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { z } from "zod";
import { codeOf, messageOf } from "../../base/index.js";
import { diskSchema, MAX_CHAIN_LAYERS, type DiskLayer } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import { writeAtomically } from "../store/files.js";

const recordSchema = z.strictObject({
  version: z.literal(1),
  kind: z.enum(["flatten", "commit"]),
  disk: diskSchema.shape.name,
  /**
   * The chains the disk goes through, from what it was to what it is to be. A guest reads the same from each of them until the emulator goes on to the last one, which it does after
   * the guest's record says so. A commit has one between: the layer that is merged into has a new uuid there.
   */
  stages: z.array(diskSchema.shape.chain.max(MAX_CHAIN_LAYERS)).min(2).max(3),
});

/** What is being done to the chain of a guest's disk, for whoever has to bring it to an end. */
export type ChainWorkRecord = z.output<typeof recordSchema>;

/** @throws AgentError `no-room`, or the file system's error. */
export async function writeChainWork(path: string, record: ChainWorkRecord): Promise<void> {
  await writeAtomically(path, `${JSON.stringify(record, undefined, 2)}\n`);
}

/** Undefined when there is nothing under way. @throws AgentError `bad-record`. */
export function readChainWork(path: string): ChainWorkRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    const message = `${path} is not a record of this version of what is done to a disk's chain: ${messageOf(cause)}`;
    throw new AgentError("bad-record", message, { cause });
  }
}

export async function removeChainWork(path: string): Promise<void> {
  await rm(path, { force: true });
}

/** Which of the stages a chain is; -1 when it is none of them. */
export function stageOf({ stages }: ChainWorkRecord, chain: readonly Pick<DiskLayer, "id">[]): number {
  const ids = chain.map(({ id }) => id).join();
  return stages.findIndex((stage) => stage.map(({ id }) => id).join() === ids);
}
