import {
  Bitmap,
  MAX_REQUEST_PAGES,
  MAX_UNSEEN_PAGES,
  PAGE_BYTES,
  PAGE_HASH_BYTES,
  SharedBits,
  type Clock,
} from "../base/index.js";
import { unpackRun, WireError, type Frame, type PageRun } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import { pageDigest, ZERO_DIGEST } from "./digests.js";
import { TransferError } from "./errors.js";
import { Gate } from "./gate.js";
import { OVERRUN } from "./lane-pair.js";
import type { ChildNotes, ChildShare, FillableMemory, FrameLane, LaneEnd, TakenPages } from "./ports.js";

export interface FaultServerOptions {
  transfer: number;
  share: ChildShare;
  memory: Pick<FillableMemory, "pageCount" | "fill" | "install" | "installZero" | "wake">;
  /** Where digests are noted before a page is installed; undefined for a child that compares nothing. */
  notes: Pick<ChildNotes, "noteDigests"> | undefined;
  clock: Clock;
  /** Called whenever pages were installed. */
  onTaken(taken: readonly TakenPages[]): void;
}

/** What the owner of an urgent lane is told of it. `bytes` are those of whole frames, both directions, so far. */
export interface LaneTelling {
  /** Something came that has no place on the lane: the machine ends it. */
  passedOn(frame: Frame, frameBytes: number, bytes: number): void;
  counted(bytes: number): void;
  ended(end: LaneEnd): void;
}

/**
 * Serves touches of a child's missing pages apart from everything else the child's agent does: it asks for them on the urgent lane, installs what comes,
 * and tells the machine, which takes pages from the bulk lane meanwhile. Both may install the same page: the kernel takes the first, and both are of
 * the same instant. It decides by the machine's own maps, and notes what it asks for before it looks at them, as the machine notes what it has before it looks at
 * what is asked for: so one of the two sees to a page that somebody waits for.
 */
export class FaultServer {
  readonly #options: FaultServerOptions;
  readonly #gate: Gate;
  readonly #received: SharedBits;
  readonly #installed: SharedBits;
  readonly #requested: SharedBits;
  /** What was installed here, whether or not the machine has heard of it. */
  readonly #own: Bitmap;
  /** When each page that is asked for was first touched. */
  readonly #since = new Map<number, number>();
  #channel: FrameChannel | undefined;
  #stopped = false;

  constructor(options: FaultServerOptions) {
    const { share } = options;
    this.#options = options;
    this.#gate = new Gate(share.gate);
    this.#received = new SharedBits(share.received);
    this.#installed = new SharedBits(share.installed);
    this.#requested = new SharedBits(share.requested);
    this.#own = new Bitmap(options.memory.pageCount);
  }

  /** Serves touches from here on. Errors as `FillableMemory.fill`. What goes wrong later is given to `onFailed`, after which nothing is served. */
  start(onFailed: (error: unknown) => void): void {
    this.#options.memory.fill((pages) => this.#guarded(onFailed, () => this.#onTouched(pages)));
  }

  /** Makes the channel of a lane, for `begin`. What goes wrong later is given to `onFailed`. */
  channelOf(lane: FrameLane, tell: LaneTelling, onFailed: (error: unknown) => void): FrameChannel {
    const { transfer, memory } = this.#options;
    const channel: FrameChannel = new FrameChannel({
      lane,
      transfer,
      pageCount: memory.pageCount,
      handlers: {
        onFrame: (frame, frameBytes) => {
          if (frame.kind !== "pages") return tell.passedOn(frame, frameBytes, channel.bytes);
          requireAnswer(frame.runs);
          if (this.#gate.unseen > MAX_UNSEEN_PAGES) {
            channel.close(OVERRUN);
            return tell.ended(OVERRUN);
          }
          this.#guarded(onFailed, () => this.#onPages(frame.runs));
          tell.counted(channel.bytes);
        },
        onEnd: (end) => {
          if (this.#channel === channel) this.#channel = undefined;
          tell.ended(end);
        },
      },
    });
    return channel;
  }

  /** Takes up a channel's lane, in the place of any before, and asks over it for all that is waited for. */
  begin(channel: FrameChannel): void {
    this.#channel = channel;
    channel.attach();
    this.#request([...this.#since.keys()]);
  }

  /** Pages that were asked for have come another way. */
  settled(pages: readonly number[]): void {
    const taken: TakenPages[] = [];
    for (const page of pages) {
      const latencyUs = this.#answered(page);
      if (latencyUs !== undefined) taken.push(known(page, { zero: false, latencyUs }));
    }
    if (taken.length > 0) this.#told(taken);
  }

  /** Installs nothing from here on. Whoever owns the memory stops reporting faults. */
  stop(): void {
    this.#stopped = true;
  }

  #guarded(onFailed: (error: unknown) => void, body: () => void): void {
    if (this.#stopped) return;
    try {
      body();
    } catch (thrown) {
      // A run that does not decode is the peer's fault, and the channel's to report.
      if (thrown instanceof WireError) throw thrown;
      this.#stopped = true;
      onFailed(thrown);
    }
  }

  #onTouched(pages: readonly number[]): void {
    const taken: TakenPages[] = [];
    const wanted: number[] = [];
    for (const page of pages) {
      if (this.#own.has(page) || this.#installed.has(page))
        this.#options.memory.wake({ first: page, count: 1 });
      else if (this.#received.has(page)) taken.push(this.#installKnown(page));
      else if (!this.#since.has(page)) {
        this.#note(page);
        // Only now can it be relied on that the machine sees it, should it learn of the page from here on.
        if (this.#received.has(page)) taken.push(this.#installKnown(page));
        else wanted.push(page);
      }
    }
    this.#request(wanted);
    if (taken.length > 0) this.#told(taken);
  }

  #onPages(runs: readonly PageRun[]): void {
    const taken: TakenPages[] = [];
    for (const run of runs) {
      const bytes = run.encoding === "zero" ? undefined : unpackRun(run);
      if (bytes !== undefined && run.pageCount > 1) {
        taken.push(...this.#takeAround(run, bytes));
        continue;
      }
      for (let page = run.firstPage; page < run.firstPage + run.pageCount; page += 1) {
        const at = (page - run.firstPage) * PAGE_BYTES;
        taken.push(this.#take(page, bytes?.subarray(at, at + PAGE_BYTES)));
      }
    }
    this.#told(taken);
  }

  #told(taken: readonly TakenPages[]): void {
    this.#gate.addUnseen(pagesOf(taken));
    this.#options.onTaken(taken);
  }

  /** Installs a page that came; one that is there already stays as it is. */
  #take(page: number, bytes: Uint8Array | undefined): TakenPages {
    const { notes } = this.#options;
    const digest = notes && (bytes === undefined ? ZERO_DIGEST : pageDigest(bytes));
    if (digest !== undefined) notes?.noteDigests(page, digest);
    const zero = bytes === undefined;
    if (!this.#own.has(page)) this.#install(page, bytes);
    return {
      firstPage: page,
      pageCount: 1,
      by: "answer",
      zero,
      latencyUs: this.#answered(page),
      // Copies: what is a view of more is sent to another thread with all of it.
      ...(digest === undefined ? {} : { digests: Uint8Array.from(digest) }),
      ...(zero || !this.#gate.wantsContent ? {} : { bytes: Uint8Array.from(bytes) }),
    };
  }

  /** Installs what came with an answer; what is there already stays as it is, and who waits for some of it waits no more. */
  #takeAround({ firstPage, pageCount }: PageRun, bytes: Uint8Array): TakenPages[] {
    const { notes, memory } = this.#options;
    const digests = notes && pageDigests(bytes);
    if (digests !== undefined) notes?.noteDigests(firstPage, digests);
    memory.install(firstPage, bytes);
    this.#own.setRun(firstPage, pageCount);
    const taken: TakenPages[] = [
      {
        firstPage,
        pageCount,
        by: "around",
        zero: false,
        latencyUs: undefined,
        ...(digests === undefined ? {} : { digests }),
        ...(this.#gate.wantsContent ? { bytes: Uint8Array.from(bytes) } : {}),
      },
    ];
    if (this.#since.size === 0) return taken;
    for (let page = firstPage; page < firstPage + pageCount; page += 1) {
      const latencyUs = this.#answered(page);
      if (latencyUs !== undefined) taken.push(known(page, { zero: false, latencyUs }));
    }
    return taken;
  }

  #installKnown(page: number): TakenPages {
    const sinceUs = this.#options.clock.nowUs();
    this.#install(page, undefined);
    const waitedUs = this.#answered(page) ?? this.#options.clock.nowUs() - sinceUs;
    return known(page, { zero: true, latencyUs: waitedUs });
  }

  #install(page: number, bytes: Uint8Array | undefined): void {
    const { memory } = this.#options;
    if (bytes === undefined) memory.installZero({ first: page, count: 1 });
    else memory.install(page, bytes);
    this.#own.set(page);
  }

  #request(pages: readonly number[]): void {
    for (let first = 0; first < pages.length; first += MAX_REQUEST_PAGES)
      this.#channel?.send({ kind: "request", pages: pages.slice(first, first + MAX_REQUEST_PAGES) });
  }

  #note(page: number): void {
    this.#since.set(page, this.#options.clock.nowUs());
    this.#requested.set(page);
    this.#gate.addWaiting(1);
  }

  /** How long it was waited for; undefined when nobody did. */
  #answered(page: number): number | undefined {
    const sinceUs = this.#since.get(page);
    if (sinceUs === undefined) return undefined;
    this.#since.delete(page);
    this.#requested.clear(page);
    this.#gate.addWaiting(-1);
    return this.#options.clock.nowUs() - sinceUs;
  }
}

/** @throws TransferError `peer-protocol` for more than is ever asked for at once: a few bytes can say that all of a memory is zero. */
function requireAnswer(runs: readonly PageRun[]): void {
  const pages = runs.reduce((sum, { pageCount }) => sum + pageCount, 0);
  if (pages <= MAX_REQUEST_PAGES) return;
  throw new TransferError(
    "peer-protocol",
    `an answer has ${pages} pages, and a request at most ${MAX_REQUEST_PAGES}`,
  );
}

/** A page that is here by other means than an answer. */
function known(page: number, of: { zero: boolean; latencyUs: number }): TakenPages {
  return { firstPage: page, pageCount: 1, by: "known", ...of };
}

/** The digests of consecutive pages, one after the other. */
function pageDigests(bytes: Uint8Array): Uint8Array {
  const digests = new Uint8Array((bytes.length / PAGE_BYTES) * PAGE_HASH_BYTES);
  for (let at = 0, to = 0; at < bytes.length; at += PAGE_BYTES, to += PAGE_HASH_BYTES)
    digests.set(pageDigest(bytes.subarray(at, at + PAGE_BYTES)), to);
  return digests;
}

/** How many pages were taken, those counted twice that came another way as well. */
export function pagesOf(taken: readonly Pick<TakenPages, "pageCount">[]): number {
  return taken.reduce((sum, { pageCount }) => sum + pageCount, 0);
}

/** What was taken, as runs to be passed on; without what is not known of it. */
export function runsOf(taken: readonly TakenPages[]): PageRun[] {
  const runs: PageRun[] = [];
  for (const { firstPage, pageCount, by, zero, bytes } of taken) {
    if (!zero && bytes === undefined) continue;
    const data = bytes ?? new Uint8Array(0);
    const origin = by === "around" ? "sweep" : "fault";
    runs.push({ firstPage, pageCount, encoding: zero ? "zero" : "raw", origin, data });
  }
  return runs;
}
