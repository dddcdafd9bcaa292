/**
 * Layers of a running guest's disk are brought together by jobs of the emulator. A job changes nothing of the chain by itself: when all is copied it waits, `pending`, until it is told to
 * finish, so that what is known of the chain can be written down before.
 *
 *     stream    what lies between the newest layer and `base` is copied into the newest           running ─▶ pending ─▶ concluded
 *     commit    what lies above `into` is copied into that, which is then the newest   running ─▶ ready ─▶ pending ─▶ concluded
 */
import { z } from "zod";
import { blockNode, deviceOf, nodeOf, topNodeOf, type DiskLayer, type GuestDisk } from "./disks.js";
import { GuestError } from "./errors.js";
import { FLUSH_DEADLINE_MS } from "./limits.js";

type Execute = (command: string, args?: object, deadlineMs?: number) => Promise<unknown>;

/** How far a job is. `cancelled` and other errors are known by their words only. */
export interface ChainJobState {
  status: string;
  doneBytes: number;
  totalBytes: number;
  error?: string | undefined;
}

const jobsSchema = z.array(
  z.looseObject({
    id: z.string(),
    status: z.string(),
    "current-progress": z.number().min(0),
    "total-progress": z.number().min(0),
    error: z.string().optional(),
  }),
);

interface NodeStats {
  "node-name"?: string | undefined;
  backing?: NodeStats | undefined;
}
const nodeStats: z.ZodType<NodeStats> = z.lazy(() =>
  z.looseObject({ "node-name": z.string().optional(), backing: nodeStats.optional() }),
);
const statsSchema = z.array(
  z.looseObject({
    qdev: z.string().optional(),
    "node-name": z.string().optional(),
    backing: nodeStats.optional(),
  }),
);

/** The jobs on a guest's disks, one for each disk at the most. Errors as those of `Emulator`. */
export class ChainJobs {
  readonly #execute: Execute;

  constructor(execute: Execute) {
    this.#execute = execute;
  }

  /** Begins to copy into the newest layer what lies between it and `base`; all there is when that is undefined. */
  async stream(disk: GuestDisk, base: DiskLayer | undefined, rateBps = 0): Promise<void> {
    await this.#execute("block-stream", {
      "job-id": jobOf(disk),
      device: topNodeOf(disk),
      ...(base === undefined ? {} : { "base-node": nodeOf(disk, base) }),
      ...common(rateBps),
    });
  }

  /** Begins to copy what lies above `into` into that. What the guest writes meanwhile is copied, too. */
  async commit(disk: GuestDisk, into: DiskLayer, rateBps = 0): Promise<void> {
    await this.#execute("block-commit", {
      "job-id": jobOf(disk),
      device: topNodeOf(disk),
      "base-node": nodeOf(disk, into),
      ...common(rateBps),
    });
  }

  /** Undefined when there is no job on the disk. @throws GuestError `protocol`. */
  async state(disk: Pick<GuestDisk, "name">): Promise<ChainJobState | undefined> {
    const parsed = jobsSchema.safeParse(await this.#execute("query-jobs"));
    if (!parsed.success) throw new GuestError("protocol", "the emulator did not say what jobs it has");
    const job = parsed.data.find(({ id }) => id === jobOf(disk));
    if (job === undefined) return undefined;
    const { status, error } = job;
    return { status, error, doneBytes: job["current-progress"], totalBytes: job["total-progress"] };
  }

  /** From here on a job copies as fast as it can. */
  async hurry(disk: Pick<GuestDisk, "name">): Promise<void> {
    await this.#execute("block-job-set-speed", { device: jobOf(disk), speed: 0 });
  }

  /** Has a `commit` that is ready bring the last of it over, and be pending. What the guest wants of the disk waits from then on. */
  async complete(disk: Pick<GuestDisk, "name">): Promise<void> {
    await this.#execute("job-complete", { id: jobOf(disk) });
  }

  /** Has a pending job change the chain. */
  async finalize(disk: Pick<GuestDisk, "name">): Promise<void> {
    await this.#execute("job-finalize", { id: jobOf(disk) }, FLUSH_DEADLINE_MS);
  }

  /** Has a job end; the chain stays as it is. */
  async cancel(disk: Pick<GuestDisk, "name">): Promise<void> {
    await this.#execute("job-cancel", { id: jobOf(disk) }, FLUSH_DEADLINE_MS);
  }

  /** Forgets a job that is concluded. */
  async dismiss(disk: Pick<GuestDisk, "name">): Promise<void> {
    await this.#execute("job-dismiss", { id: jobOf(disk) });
  }

  /** The nodes of a disk's chain, as the emulator has it, the newest first. @throws GuestError `protocol`. */
  async nodes(disk: Pick<GuestDisk, "name">): Promise<string[]> {
    const parsed = statsSchema.safeParse(await this.#execute("query-blockstats"));
    const device = parsed.data?.find(({ qdev }) => qdev?.split("/").includes(deviceOf(disk)) === true);
    if (device === undefined)
      throw new GuestError("protocol", "the emulator did not say what its disks stand on");
    const nodes: string[] = [];
    for (let node: NodeStats | undefined = device; node !== undefined; node = node.backing)
      nodes.push(node["node-name"] ?? "");
    return nodes;
  }

  /** Opens a layer for reading, which nothing stands on yet. */
  async add(disk: GuestDisk, layer: DiskLayer, backing: DiskLayer | undefined): Promise<void> {
    await this.#execute("blockdev-add", blockNode(disk, layer, { backing, readOnly: true }));
  }

  /** Writes to the host's disk all that was written to a layer, and has it stand on `backing`, and be as a layer of its place is. The guest runs on. */
  async reopen(
    disk: GuestDisk,
    layer: DiskLayer,
    options: { backing: DiskLayer | undefined; readOnly: boolean },
  ): Promise<void> {
    await this.#execute("blockdev-reopen", { options: [blockNode(disk, layer, options)] }, FLUSH_DEADLINE_MS);
  }

  /** Closes layers that nothing stands on any more, the newest first. What the emulator does not have any more is closed. */
  async close(disk: GuestDisk, layers: readonly DiskLayer[]): Promise<void> {
    for (const layer of layers) {
      try {
        await this.#execute("blockdev-del", { "node-name": nodeOf(disk, layer) });
      } catch (error) {
        if (!(error instanceof GuestError) || error.code !== "command-failed") throw error;
      }
    }
  }
}

function jobOf({ name }: Pick<GuestDisk, "name">): string {
  return `chain-${name}`;
}

function common(rateBps: number): object {
  return { speed: rateBps, "auto-finalize": false, "auto-dismiss": false };
}
