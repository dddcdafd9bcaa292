import {
  Bitmap,
  deferred,
  codeOf,
  MAX_RECEIVED_RUNS,
  MAX_REQUEST_PAGES,
  messageOf,
  PAGE_BYTES,
  type Clock,
  type Log,
  type Timer,
} from "../base/index.js";
import { unpackRun, WireError, type Frame, type PageRun } from "../wire/index.js";
import { FrameChannel } from "./channel.js";
import { PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import { LatencyHistogram } from "./latency.js";
import type { DialLane, FillableMemory, LaneEnd, PageLane, PageRange } from "./ports.js";
import { OriginCounts, type TransferProgress, type VerifyResult } from "./progress.js";
import { mergeRanges } from "./ranges.js";

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5000;
/** How long a complete child waits for the parent's answer to `done` before it dials once more. */
const DONE_DEADLINE_MS = 5000;
/** A complete child needs nothing more; it stops telling its parent after so many dials. */
const MAX_DONE_DIALS = 5;

/** Where a child stands. It owns all its memory from `complete` on, whether or not the parent has heard of it. */
export type ChildPhase =
  | { phase: "dialling" }
  | { phase: "paging" }
  | { phase: "complete" }
  | { phase: "failed"; error: TransferError };

interface ChildLink {
  epoch: number;
  channels: Partial<Record<PageLane, FrameChannel>>;
}

export interface ChildMachineOptions {
  transfer: number;
  memory: FillableMemory;
  dial: DialLane;
  clock: Clock;
  log: Log;
  /** Compare the digest of each page given with the parent's. */
  verify: boolean;
}

/**
 * The child's side of a transfer. A page is missing, then known to be zero or installed, once and for good; a touch of a missing page is requested on
 * the urgent lane, first come first served. Lost lanes are dialled again for as long as it takes; meanwhile only those who touch a missing page wait.
 */
export class ChildMachine {
  readonly #options: ChildMachineOptions;
  readonly #pageCount: number;
  /** Pages whose content is here, known zero pages included. */
  readonly #received: Bitmap;
  /** Pages that are really in memory; the others that are received are zero and still holes. */
  readonly #installed: Bitmap;
  readonly #requested = new Map<number, number>();
  readonly #counts = new OriginCounts();
  readonly #latency = new LatencyHistogram();
  readonly #given: PageDigests | undefined;
  readonly #expected: PageDigests | undefined;
  readonly #linked = deferred<void>();
  readonly #ended = deferred<ChildPhase>();
  #link: ChildLink = { epoch: 0, channels: {} };
  #phase: ChildPhase = { phase: "dialling" };
  #verify: VerifyResult | undefined;
  #zero = 0;
  #duplicates = 0;
  #reportRuns: PageRange[] = [];
  #creditBytes = 0;
  #flush: Timer | undefined;
  #retry: Timer | undefined;
  #retryMs = FIRST_RETRY_MS;
  #doneDials = 0;
  #closed = false;
  #pastBytes = { urgent: 0, bulk: 0 };

  constructor(options: ChildMachineOptions) {
    this.#options = options;
    this.#pageCount = options.memory.pageCount;
    this.#received = new Bitmap(this.#pageCount);
    this.#installed = new Bitmap(this.#pageCount);
    this.#given = options.verify ? new PageDigests(this.#pageCount) : undefined;
    this.#expected = options.verify ? new PageDigests(this.#pageCount) : undefined;
    // A failure is reported through `ended`; nobody need be waiting for the lanes.
    this.#linked.promise.catch(() => {});
  }

  get phase(): ChildPhase {
    return this.#phase;
  }

  /** Resolves when both page lanes are there for the first time; rejects when the machine fails before. */
  get linked(): Promise<void> {
    return this.#linked.promise;
  }

  /** Resolves when every page is here and nothing is registered any more, or when the child cannot go on. */
  get ended(): Promise<ChildPhase> {
    return this.#ended.promise;
  }

  /** What the comparison of digests found; undefined before the end, or when none was asked for. */
  get verify(): VerifyResult | undefined {
    return this.#verify;
  }

  progress(): TransferProgress {
    const bytes = (lane: PageLane) => this.#pastBytes[lane] + (this.#link.channels[lane]?.bytes ?? 0);
    return {
      total: this.#pageCount,
      received: this.#received.count,
      fault: this.#counts.fault,
      push: this.#counts.push,
      sweep: this.#counts.sweep,
      zero: this.#zero,
      duplicates: this.#duplicates,
      urgentBytes: bytes("urgent"),
      bulkBytes: bytes("bulk"),
      faults: {
        count: this.#latency.count,
        waiting: this.#requested.size,
        p50Us: this.#latency.percentileUs(0.5),
        p99Us: this.#latency.percentileUs(0.99),
        maxUs: this.#latency.maxUs,
      },
      reconnects: Math.max(0, this.#link.epoch - 1),
    };
  }

  /** Starts serving touches of missing pages and dials the parent. */
  start(): void {
    this.#options.memory.fill((pages) => this.#installing(() => this.#onFaults(pages)));
    this.#dialLanes();
  }

  /** Ends the machine before the child is complete. The memory is not released: a child without its pages must never run on zeros. */
  cancel(error: TransferError): void {
    this.#fail(error, { code: error.code, message: error.message, fatal: true });
  }

  #onFaults(pages: readonly number[]): void {
    const nowUs = this.#options.clock.nowUs();
    const wanted: number[] = [];
    for (const page of pages) {
      if (this.#installed.has(page)) {
        this.#options.memory.wake({ first: page, count: 1 });
      } else if (this.#received.has(page)) {
        this.#installZero(page);
        this.#latency.add(this.#options.clock.nowUs() - nowUs);
      } else if (!this.#requested.has(page)) {
        this.#requested.set(page, nowUs);
        wanted.push(page);
      }
    }
    this.#request(wanted);
  }

  #request(pages: readonly number[]): void {
    for (let first = 0; first < pages.length; first += MAX_REQUEST_PAGES) {
      this.#link.channels.urgent?.send({
        kind: "request",
        pages: pages.slice(first, first + MAX_REQUEST_PAGES),
      });
    }
  }

  #dialLanes(): void {
    const link: ChildLink = { epoch: this.#link.epoch + 1, channels: {} };
    this.#link = link;
    for (const name of ["urgent", "bulk"] as const) {
      this.#options.dial(name, link.epoch).then(
        (lane) => {
          if (link !== this.#link || this.#closed) {
            lane.close({ code: "replaced", message: "this dial was given up", fatal: false });
            return;
          }
          link.channels[name] = new FrameChannel({
            lane,
            transfer: this.#options.transfer,
            pageCount: this.#pageCount,
            handlers: {
              onFrame: (frame, frameBytes) => this.#onFrame(link, name, frame, frameBytes),
              onEnd: (end) => this.#onLaneEnd(link, end),
            },
          });
          if (link.channels.urgent !== undefined && link.channels.bulk !== undefined) this.#onLinked();
        },
        (thrown: unknown) => {
          const fatal = thrown instanceof Error && "fatal" in thrown && thrown.fatal === true;
          this.#onLaneEnd(link, { code: codeOf(thrown), message: messageOf(thrown), fatal });
        },
      );
    }
  }

  #onLinked(): void {
    this.#retryMs = FIRST_RETRY_MS;
    if (this.#phase.phase === "dialling") this.#phase = { phase: "paging" };
    this.#reportRuns = [];
    this.#creditBytes = 0;
    this.#sendHave();
    this.#request([...this.#requested.keys()]);
    this.#linked.resolve();
    if (this.#phase.phase === "complete") this.#sendDone();
  }

  #sendHave(): void {
    const runs = [...this.#received.runs()];
    for (let first = 0; first === 0 || first < runs.length; first += MAX_RECEIVED_RUNS) {
      const last = first + MAX_RECEIVED_RUNS >= runs.length;
      this.#link.channels.bulk?.send({
        kind: "have",
        last,
        runs: runs.slice(first, first + MAX_RECEIVED_RUNS),
      });
    }
  }

  #onLaneEnd(link: ChildLink, end: LaneEnd): void {
    if (link !== this.#link || this.#closed) return;
    this.#dropLink({ code: "lane-lost", message: "the other lane of this link was lost", fatal: false });
    if (this.#phase.phase === "complete") {
      // Nothing is missing, so the parent's end does not matter; it is told a few times, then left to find out by itself.
      if (end.fatal || this.#doneDials >= MAX_DONE_DIALS) {
        this.#close();
        return;
      }
    } else if (end.fatal) {
      this.#fail(new TransferError("parent-failed", end.message), end);
      return;
    }
    this.#options.log.warn(
      { transfer: this.#options.transfer, end, retryMs: this.#retryMs },
      "page lanes lost; dialling again",
    );
    this.#retry = this.#options.clock.after(this.#retryMs, () => this.#dialLanes());
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  #dropLink(end: LaneEnd): void {
    for (const lane of ["urgent", "bulk"] as const) {
      this.#pastBytes[lane] += this.#link.channels[lane]?.bytes ?? 0;
      this.#link.channels[lane]?.close(end);
      delete this.#link.channels[lane];
    }
    // Dials of this link that are still on their way are closed when they arrive.
    this.#link = { epoch: this.#link.epoch, channels: {} };
    this.#flush?.cancel();
    this.#flush = undefined;
    this.#retry?.cancel();
  }

  #onFrame(link: ChildLink, lane: PageLane, frame: Frame, frameBytes: number): void {
    if (link !== this.#link) return;
    if (frame.kind === "pages") {
      if (!this.#installing(() => this.#onPages(frame.runs))) return;
    } else if (lane === "bulk" && frame.kind === "hashes") this.#onHashes(frame.firstPage, frame.digests);
    else if (lane === "bulk" && frame.kind === "done" && this.#phase.phase === "complete")
      return this.#close();
    else
      throw new TransferError(
        "peer-protocol",
        `a frame of kind ${frame.kind} has no place on the ${lane} lane now`,
      );
    if (lane === "bulk") this.#creditBytes += frameBytes;
    this.#completeIfDone();
    this.#reportSoon();
  }

  /** Runs what installs pages; false when this host could not, which ends the child: what it lacks now it can never get. */
  #installing(install: () => void): boolean {
    try {
      install();
      return true;
    } catch (thrown) {
      // A run that does not decode is the peer's fault, and the channel's to report.
      if (thrown instanceof WireError || codeOf(thrown) === "internal") throw thrown;
      const error = new TransferError("child-failed", `pages could not be installed: ${messageOf(thrown)}`, {
        cause: thrown,
      });
      this.#fail(error, { code: error.code, message: error.message, fatal: true });
      return false;
    }
  }

  #onPages(runs: readonly PageRun[]): void {
    for (const run of runs) {
      this.#counts.add(run.origin, run.pageCount);
      const bytes = run.encoding === "zero" ? undefined : unpackRun(run);
      this.#forMissing(run, (range) => {
        if (bytes === undefined) this.#learnZero(range);
        else this.#install(range, sliceOf(bytes, run, range));
        this.#reportRuns.push(range);
      });
    }
  }

  /** Calls `take` for each range of the run that was not received before, and counts the rest as duplicates. */
  #forMissing(run: PageRun, take: (range: PageRange) => void): void {
    const past = run.firstPage + run.pageCount;
    let taken = 0;
    for (let first = this.#received.nextClear(run.firstPage); first !== -1 && first < past;) {
      const next = this.#received.nextSet(first);
      const end = next === -1 || next > past ? past : next;
      const range = { first, count: end - first };
      taken += range.count;
      take(range);
      this.#received.setRun(range.first, range.count);
      first = this.#received.nextClear(end);
    }
    this.#duplicates += run.pageCount - taken;
  }

  #install(range: PageRange, bytes: Uint8Array): void {
    this.#options.memory.install(range.first, bytes);
    this.#installed.setRun(range.first, range.count);
    this.#given?.setContent(range.first, bytes);
    if (this.#requested.size === 0) return;
    for (let page = range.first; page < range.first + range.count; page += 1) this.#answered(page);
  }

  #learnZero(range: PageRange): void {
    this.#zero += range.count;
    if (this.#given !== undefined) {
      for (let page = range.first; page < range.first + range.count; page += 1) this.#given.setZero(page);
    }
    for (const page of [...this.#requested.keys()]) {
      if (page < range.first || page >= range.first + range.count) continue;
      this.#installZero(page);
      this.#answered(page);
    }
  }

  #installZero(page: number): void {
    this.#options.memory.installZero({ first: page, count: 1 });
    this.#installed.set(page);
  }

  #answered(page: number): void {
    const sinceUs = this.#requested.get(page);
    if (sinceUs === undefined) return;
    this.#requested.delete(page);
    this.#latency.add(this.#options.clock.nowUs() - sinceUs);
  }

  #onHashes(firstPage: number, digests: Uint8Array): void {
    if (this.#expected === undefined)
      throw new TransferError("peer-protocol", "hashes were sent to a child that did not ask for them");
    this.#expected.setDigests(firstPage, digests);
  }

  #completeIfDone(): void {
    if (this.#phase.phase !== "paging" || this.#received.count < this.#pageCount) return;
    if (this.#given !== undefined && this.#expected !== undefined) {
      if (!this.#expected.complete) return;
      const differing = this.#given.differences(this.#expected);
      this.#verify = {
        checked: this.#pageCount,
        mismatches: differing.length,
        firstPages: differing.slice(0, 16),
      };
    }
    this.#options.memory.release();
    this.#phase = { phase: "complete" };
    this.#report();
    this.#sendDone();
    this.#ended.resolve(this.#phase);
  }

  #sendDone(): void {
    this.#doneDials += 1;
    this.#link.channels.bulk?.send({ kind: "done" });
    this.#retry?.cancel();
    const link = this.#link;
    this.#retry = this.#options.clock.after(DONE_DEADLINE_MS, () => {
      this.#onLaneEnd(link, {
        code: "no-answer",
        message: "the parent did not answer that the child is complete",
        fatal: false,
      });
    });
  }

  #reportSoon(): void {
    if (
      this.#closed ||
      this.#flush !== undefined ||
      (this.#reportRuns.length === 0 && this.#creditBytes === 0)
    )
      return;
    this.#flush = this.#options.clock.soon(() => {
      this.#flush = undefined;
      this.#report();
    });
  }

  #report(): void {
    const bulk = this.#link.channels.bulk;
    if (bulk === undefined) return;
    const runs = mergeRanges(this.#reportRuns);
    for (let first = 0; first === 0 || first < runs.length; first += MAX_RECEIVED_RUNS) {
      const creditBytes = first === 0 ? this.#creditBytes : 0;
      bulk.send({ kind: "received", creditBytes, runs: runs.slice(first, first + MAX_RECEIVED_RUNS) });
    }
    this.#reportRuns = [];
    this.#creditBytes = 0;
  }

  #fail(error: TransferError, laneEnd: LaneEnd): void {
    if (this.#phase.phase === "complete" || this.#phase.phase === "failed") return;
    this.#phase = { phase: "failed", error };
    this.#dropLink(laneEnd);
    this.#closed = true;
    this.#linked.reject(error);
    this.#ended.resolve(this.#phase);
  }

  #close(): void {
    this.#closed = true;
    this.#dropLink({ code: "complete", message: "the child is complete", fatal: true });
  }
}

/** The bytes of the pages in `range`, which lies inside the run. */
function sliceOf(bytes: Uint8Array, run: PageRun, range: PageRange): Uint8Array {
  const first = range.first - run.firstPage;
  return bytes.subarray(first * PAGE_BYTES, (first + range.count) * PAGE_BYTES);
}
