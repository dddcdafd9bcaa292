import { assert, codeOf, MAX_BLOCK_READ_BYTES, messageOf, sleep, type Clock } from "../../base/index.js";
import { DiskError, type BlockExtent, type BlockSource, type FillingSources } from "../../disk/index.js";
import type { FrameLane, LaneEnd } from "../../transfer/index.js";
import { BlockRequests } from "./block-requests.js";
import type { BlockPurpose } from "./block-supply.js";

/** Pauses between dialling a lane again: they double. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;

export interface RemoteBlocksOptions {
  grant: number;
  /** Bytes of each disk of the grant. */
  sizes: readonly number[];
  /** Dials a lane. Rejects with a coded error; with `fatal`, when dialling again cannot help. */
  dial(purpose: BlockPurpose, epoch: number): Promise<FrameLane>;
  clock: Clock;
}

/** The disks of one grant, read over both of its lanes, which are dialled again for as long as that can help. */
export class RemoteBlocks {
  readonly #options: RemoteBlocksOptions;
  readonly #requests: { readonly [Purpose in BlockPurpose]: BlockRequests };
  readonly #problems = new Map<BlockPurpose, string>();
  #over: DiskError | undefined;
  #onOver: (why: DiskError) => void = () => {};

  constructor(options: RemoteBlocksOptions) {
    this.#options = options;
    const { grant } = options;
    this.#requests = {
      "block-urgent": new BlockRequests({ grant, windowed: false }),
      "block-bulk": new BlockRequests({ grant, windowed: true }),
    };
    void this.#keepDialled("block-urgent");
    void this.#keepDialled("block-bulk");
  }

  /** Bytes of whole frames that came on both lanes. */
  get receivedBytes(): number {
    return this.#requests["block-urgent"].receivedBytes + this.#requests["block-bulk"].receivedBytes;
  }

  /** Why nothing comes at present on one of the lanes; undefined while both are there. */
  get problem(): string | undefined {
    return this.#problems.get("block-urgent") ?? this.#problems.get("block-bulk");
  }

  /** One of the grant's disks. */
  disk(index: number): FillingSources {
    return { urgent: this.#source(index, "block-urgent"), bulk: this.#source(index, "block-bulk") };
  }

  /** Calls `run` once when the source gives nothing any more; not after `close`. */
  onOver(run: (why: DiskError) => void): void {
    if (this.#over === undefined) this.#onOver = run;
    else run(this.#over);
  }

  /** Ends the lanes. Reads that are under way are refused. May be called twice. */
  close(): void {
    this.#onOver = () => {};
    this.#end(new DiskError("cancelled", "the disk of another host is not read any more"));
  }

  #source(disk: number, purpose: BlockPurpose): BlockSource {
    const sizeBytes = this.#options.sizes[disk];
    assert(sizeBytes !== undefined, `the grant has a disk ${disk}`);
    const requests = this.#requests[purpose];
    return {
      sizeBytes,
      read: (offset, lengthBytes) => readInPieces(requests, { disk, offset, lengthBytes }),
      extents: (offset, lengthBytes): Promise<BlockExtent[]> =>
        requests.ask({ kind: "map", disk, offset, lengthBytes }),
    };
  }

  /** Never rejects. */
  async #keepDialled(purpose: BlockPurpose): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    for (let epoch = 1; this.#over === undefined; epoch += 1) {
      try {
        const lane = await this.#options.dial(purpose, epoch);
        if (this.#over !== undefined) return lane.close(CLOSED);
        pauseMs = FIRST_PAUSE_MS;
        this.#problems.delete(purpose);
        const end = await new Promise<LaneEnd>((resolve) => this.#requests[purpose].use(lane, resolve));
        if (end.fatal) return this.#end(lost(end));
        this.#problems.set(purpose, end.message);
      } catch (error) {
        if (error instanceof Error && "fatal" in error && error.fatal === true)
          return this.#end(lost({ code: codeOf(error), message: messageOf(error) }));
        this.#problems.set(purpose, messageOf(error));
      }
      await sleep(this.#options.clock, pauseMs);
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  #end(why: DiskError): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    for (const requests of Object.values(this.#requests)) requests.close(why);
    this.#onOver(why);
  }
}

const CLOSED: LaneEnd = { code: "closed", message: "the disk is not read any more", fatal: false };

function lost(end: { code: string; message: string }): DiskError {
  return new DiskError(
    "source-lost",
    `the disk cannot be read from its host any more: ${end.message} (${end.code})`,
  );
}

async function readInPieces(
  requests: BlockRequests,
  { disk, offset, lengthBytes }: { disk: number; offset: number; lengthBytes: number },
): Promise<Buffer> {
  const pieces: Promise<Buffer>[] = [];
  for (let at = 0; at < lengthBytes; at += MAX_BLOCK_READ_BYTES) {
    const length = Math.min(MAX_BLOCK_READ_BYTES, lengthBytes - at);
    pieces.push(requests.ask({ kind: "read", disk, offset: offset + at, lengthBytes: length }));
  }
  return pieces.length === 1 ? (pieces[0] as Promise<Buffer>) : Buffer.concat(await Promise.all(pieces));
}
