import {
  BULK_WINDOW_BYTES,
  CodedError,
  MAX_BLOCK_EXTENTS,
  MAX_BLOCK_FAILURE_BYTES,
  MAX_BLOCK_REQUESTS,
  messageOf,
  type Log,
} from "../../base/index.js";
import { cutExtents, type BlockSource } from "../../disk/index.js";
import type { FrameLane, LaneEnd } from "../../transfer/index.js";
import {
  decodeBlockFrame,
  encodeBlockFrame,
  packContent,
  WireError,
  type BlockFrame,
  type MapFrame,
  type ReadFrame,
} from "../../wire/index.js";

/** One of a grant's two lanes. */
export type BlockPurpose = "block-urgent" | "block-bulk";

export interface BlockSupplyOptions {
  lane: FrameLane;
  purpose: BlockPurpose;
  grant: number;
  disks: readonly BlockSource[];
  compress: boolean;
  log: Log;
  /** Called once, when the lane has ended by whatever side. */
  onEnd(): void;
}

/** The source's side of one lane: answers each request as its disk does. See proto/BLOCKS.md. */
export class BlockSupply {
  readonly #options: BlockSupplyOptions;
  readonly #sizes: readonly number[];
  /** Requests under way, and the bytes each asks for. */
  readonly #underWay = new Map<number, number>();
  #underWayBytes = 0;
  #received = 0;
  #sent = 0;
  #sentBytes = 0;
  #over = false;

  constructor(options: BlockSupplyOptions) {
    this.#options = options;
    this.#sizes = options.disks.map(({ sizeBytes }) => sizeBytes);
    options.lane.attach({ onFrame: (frame) => this.#onFrame(frame), onEnd: () => this.#finish() });
  }

  /** Bytes of whole frames that were sent. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** Ends the lane; what is under way is not answered. May be called twice. */
  close(end: LaneEnd): void {
    if (this.#over) return;
    this.#options.lane.close(end);
    this.#finish();
  }

  #onFrame(bytes: Uint8Array): void {
    if (this.#over) return;
    this.#received += 1;
    try {
      const position = { transfer: this.#options.grant, sequence: this.#received };
      const frame = decodeBlockFrame(bytes, { ...position, sizes: this.#sizes });
      if (frame.kind !== "read" && frame.kind !== "map")
        return this.#breach(`a reader sends no ${frame.kind}`);
      const problem = this.#take(frame);
      if (problem !== undefined) return this.#breach(problem);
      void this.#answer(frame);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.close({ code: error.code, message: error.message, fatal: true });
    }
  }

  /** Counts a request. @returns why it must not come now. */
  #take({ kind, request, lengthBytes }: ReadFrame | MapFrame): string | undefined {
    const bytes = kind === "read" ? lengthBytes : 0;
    if (this.#underWay.has(request)) return `request ${request} is under way already`;
    if (this.#underWay.size >= MAX_BLOCK_REQUESTS)
      return `${MAX_BLOCK_REQUESTS} requests are under way already`;
    if (this.#options.purpose === "block-bulk" && this.#underWayBytes + bytes > BULK_WINDOW_BYTES)
      return "more is asked for than the window holds";
    this.#underWay.set(request, bytes);
    this.#underWayBytes += bytes;
    return undefined;
  }

  /** Never rejects: what a disk does not give is told. */
  async #answer(asked: ReadFrame | MapFrame): Promise<void> {
    let frame: BlockFrame;
    try {
      frame = await this.#frameFor(asked);
    } catch (error) {
      const { log, grant } = this.#options;
      log.warn({ grant, asked, problem: messageOf(error) }, "blocks cannot be given to a peer");
      const failure = error instanceof CodedError && error.code === "no-such-image" ? "gone" : "unreadable";
      frame = { kind: "failed", request: asked.request, failure, message: shortened(messageOf(error)) };
    }
    if (this.#over) return;
    this.#underWayBytes -= this.#underWay.get(asked.request) ?? 0;
    this.#underWay.delete(asked.request);
    this.#sent += 1;
    const bytes = encodeBlockFrame(frame, { transfer: this.#options.grant, sequence: this.#sent });
    this.#sentBytes += bytes.length;
    this.#options.lane.send(bytes);
  }

  async #frameFor({ kind, request, disk, offset, lengthBytes }: ReadFrame | MapFrame): Promise<BlockFrame> {
    // The decoder knows which disks there are.
    const source = this.#options.disks[disk] as BlockSource;
    if (kind === "map") {
      const found = await source.extents(offset, lengthBytes);
      return { kind: "extents", request, extents: cutExtents(found, lengthBytes, MAX_BLOCK_EXTENTS) };
    }
    const content = await source.read(offset, lengthBytes);
    return { kind: "content", request, runs: packContent(content, this.#options) };
  }

  #breach(message: string): void {
    this.close({ code: "peer-protocol", message, fatal: true });
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.onEnd();
  }
}

/** What fits in the protocol, not cut inside a character. */
function shortened(message: string): string {
  const bytes = Buffer.from(message, "utf8").subarray(0, MAX_BLOCK_FAILURE_BYTES - 3);
  return bytes.toString("utf8").replace(/\uFFFD$/u, "");
}
