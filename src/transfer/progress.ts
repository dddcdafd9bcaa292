import type { RelayProgress } from "./child-relay.js";
import type { CompressionProgress } from "./compression.js";
import type { Origin } from "../wire/index.js";

/** Counts of one transfer, alike on both sides; pages unless the name says otherwise. */
export interface TransferProgress {
  total: number;
  /** Pages the child has, known zero pages included. */
  received: number;
  fault: number;
  push: number;
  sweep: number;
  /** Pages never sent because they hold only zeros; they are also counted by origin. */
  zero: number;
  /** Pages that arrived when the child already had them. */
  duplicates: number;
  urgentBytes: number;
  bulkBytes: number;
  faults: {
    count: number;
    waiting: number;
    p50Us: number;
    p90Us: number;
    p99Us: number;
    p999Us: number;
    maxUs: number;
  };
  /** Of the parent's side: pages that go ahead of the sweep, and those of them sent so; they are counted as swept, too. */
  ahead?: { pages: number; sent: number };
  /** Of the parent's side. */
  compression?: CompressionProgress;
  /** Times the page lanes were lost and dialled again. */
  reconnects: number;
  /** Whether both page lanes are there; while they are not, whoever needs a page waits. */
  linked: boolean;
  /** At a parent: bulk is held back because another child passes on to this one. */
  holding?: boolean;
  /** At a child: what it passes on and is passed on. */
  relay?: RelayProgress;
  /** While lanes that were there are not: since when, on the clock's monotonic scale, and why. */
  lost?: { sinceUs: number; why: string };
}

/** What a transfer that has moved nothing yet has counted, or one that moves nothing at all; whoever counts from here says how many pages there are. */
export const NOTHING_MOVED = {
  fault: 0,
  push: 0,
  sweep: 0,
  zero: 0,
  duplicates: 0,
  urgentBytes: 0,
  bulkBytes: 0,
  faults: { count: 0, waiting: 0, p50Us: 0, p90Us: 0, p99Us: 0, p999Us: 0, maxUs: 0 },
  reconnects: 0,
} as const satisfies Omit<TransferProgress, "total" | "received" | "linked">;

/** Counts pages by why they were sent. */
export class OriginCounts {
  fault = 0;
  push = 0;
  sweep = 0;

  add(origin: Origin, pages: number): void {
    this[origin] += pages;
  }
}

/** What a comparison of page digests found; `firstPages` names at most 16 of the pages that differ. */
export interface VerifyResult {
  checked: number;
  mismatches: number;
  firstPages: number[];
}
