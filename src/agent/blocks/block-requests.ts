import { assert, BULK_WINDOW_BYTES, deferred, MAX_BLOCK_REQUESTS, type Deferred } from "../../base/index.js";
import { DiskError, type BlockExtent } from "../../disk/index.js";
import type { FrameLane, LaneEnd } from "../../transfer/index.js";
import {
  decodeBlockFrame,
  encodeBlockFrame,
  unpackContent,
  WireError,
  type BlockFrame,
  type MapFrame,
  type ReadFrame,
} from "../../wire/index.js";

/** What is asked for, by what it brings. */
interface Pending {
  asked: Omit<ReadFrame, "request"> | Omit<MapFrame, "request">;
  answer: Deferred<Buffer | BlockExtent[]>;
}

/** The window of urgent requests: nobody is made to wait for it but by their number. */
const NO_WINDOW = Number.MAX_SAFE_INTEGER;

/**
 * The reader's side of one kind of lane, through all of that kind's lanes: what is not answered when one is lost is asked again on the next, for it never changes.
 */
export class BlockRequests {
  readonly #grant: number;
  readonly #windowBytes: number;
  /** Sent on the present lane, by the number each has there. */
  readonly #sent = new Map<number, Pending>();
  /** Not sent, in order. */
  #waiting: Pending[] = [];
  #sentBytes = 0;
  #lane: FrameLane | undefined;
  #onLost: (end: LaneEnd) => void = () => {};
  #requests = 0;
  #framesSent = 0;
  #framesReceived = 0;
  #receivedBytes = 0;
  #closed: DiskError | undefined;

  constructor(options: { grant: number; windowed: boolean }) {
    this.#grant = options.grant;
    this.#windowBytes = options.windowed ? BULK_WINDOW_BYTES : NO_WINDOW;
  }

  /** Bytes of whole frames that came. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** What a read or a map brings. @throws DiskError `source-lost` when it cannot be had. */
  ask(asked: Omit<ReadFrame, "request">): Promise<Buffer>;
  ask(asked: Omit<MapFrame, "request">): Promise<BlockExtent[]>;
  ask(asked: Pending["asked"]): Promise<Buffer | BlockExtent[]> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const pending = { asked, answer: deferred<Buffer | BlockExtent[]>() };
    this.#waiting.push(pending);
    this.#pump();
    return pending.answer.promise;
  }

  /** Goes on over a new lane. @param onLost called once when it ends, unless by `close`. */
  use(lane: FrameLane, onLost: (end: LaneEnd) => void): void {
    assert(this.#lane === undefined, "the lane before has ended");
    this.#lane = lane;
    this.#onLost = onLost;
    this.#framesSent = 0;
    this.#framesReceived = 0;
    lane.attach({ onFrame: (frame) => this.#onFrame(frame), onEnd: (end) => this.#lose(end) });
    this.#pump();
  }

  /** Ends the lane, and refuses what is asked for and what will be. May be called twice. */
  close(why: DiskError): void {
    this.#closed ??= why;
    const lane = this.#lane;
    this.#lane = undefined;
    lane?.close({ code: "closed", message: "the disk is not read any more", fatal: false });
    const pending = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#waiting = [];
    for (const { answer } of pending) answer.reject(why);
  }

  /** Sends what the limits let through. */
  #pump(): void {
    while (this.#lane !== undefined && this.#sent.size < MAX_BLOCK_REQUESTS) {
      const next = this.#waiting[0];
      if (next === undefined || this.#sentBytes + costOf(next) > this.#windowBytes) return;
      this.#waiting.shift();
      this.#requests = (this.#requests + 1) % 2 ** 32;
      this.#sent.set(this.#requests, next);
      this.#sentBytes += costOf(next);
      this.#framesSent += 1;
      const frame: BlockFrame = { ...next.asked, request: this.#requests };
      this.#lane.send(encodeBlockFrame(frame, { transfer: this.#grant, sequence: this.#framesSent }));
    }
  }

  #onFrame(bytes: Uint8Array): void {
    this.#framesReceived += 1;
    this.#receivedBytes += bytes.length;
    try {
      const position = { transfer: this.#grant, sequence: this.#framesReceived };
      this.#take(decodeBlockFrame(bytes, { ...position, sizes: [] }));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#breach(error.code, error.message);
    }
  }

  #take(frame: BlockFrame): void {
    if (frame.kind === "read" || frame.kind === "map")
      return this.#breach("peer-protocol", `a source sends no ${frame.kind}`);
    const pending = this.#sent.get(frame.request);
    const due = frame.kind === "content" ? "read" : frame.kind === "extents" ? "map" : pending?.asked.kind;
    if (pending === undefined || pending.asked.kind !== due)
      return this.#breach("peer-protocol", `an answer came to request ${frame.request}, which nobody made`);
    const { lengthBytes } = pending.asked;
    // What throws here leaves the request where it is, to be asked again.
    const content = frame.kind === "content" ? unpackContent(frame, lengthBytes) : undefined;
    if (frame.kind === "extents") requireWithin(frame.extents, lengthBytes);
    this.#sent.delete(frame.request);
    this.#sentBytes -= costOf(pending);
    if (frame.kind === "failed") pending.answer.reject(new DiskError("source-lost", said(frame.message)));
    else if (frame.kind === "extents") pending.answer.resolve(frame.extents);
    else if (content !== undefined) pending.answer.resolve(content);
    this.#pump();
  }

  #breach(code: string, message: string): void {
    const end = { code, message, fatal: true };
    this.#lane?.close(end);
    this.#lose(end);
  }

  #lose(end: LaneEnd): void {
    if (this.#lane === undefined) return;
    this.#lane = undefined;
    this.#waiting = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#sentBytes = 0;
    this.#onLost(end);
  }
}

function costOf({ asked }: Pending): number {
  return asked.kind === "read" ? asked.lengthBytes : 0;
}

function requireWithin(extents: readonly BlockExtent[], lengthBytes: number): void {
  const found = extents.reduce((sum, extent) => sum + extent.lengthBytes, 0);
  if (found > lengthBytes)
    throw new WireError("bad-extent", `extents of ${found} bytes came where ${lengthBytes} were asked for`);
}

/** What another host says is shown without what would move a terminal's cursor. */
function said(message: string): string {
  return `the other host says: ${message.replace(/\p{Cc}/gu, " ")}`;
}
