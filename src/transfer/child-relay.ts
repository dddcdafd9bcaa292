import type { Clock, Log } from "../base/index.js";
import type { Frame, PageRun } from "../wire/index.js";
import type { FrameLane, LaneEnd } from "./ports.js";
import { RelayBranch } from "./relay-branch.js";
import { RelayFeed } from "./relay-feed.js";

/** What a child has of relays: pages that another passed on to it, and pages it passed on, or could not, to how many others. */
export interface RelayProgress {
  fed: boolean;
  pages: number;
  branches: number;
  passedOn: number;
  dropped: number;
}

export interface ChildRelayOptions {
  transfer: number;
  pageCount: number;
  clock: Clock;
  log: Log;
  /** Installs what another child has passed on; throws a WireError when it is wrong. */
  take(frame: Extract<Frame, { kind: "pages" }>): void;
  /** Another child feeds this one, or does not any more: the parent is to know. */
  onFed(fed: boolean): void;
  /** Credit that was withheld may be given. */
  onRoom(): void;
  /** Whether there is anybody to pass on to, whenever that may have changed. */
  onPassing(passing: boolean): void;
}

/**
 * A child among the other children of its instant: what it is given it passes on, as it comes, before anything can change it; and it may be fed so by one
 * of them. The parent goes on owing every child every page, so nothing depends on a relay but how often a page leaves the parent's host.
 */
export class ChildRelay {
  readonly #options: ChildRelayOptions;
  readonly #branches = new Map<number, RelayBranch>();
  #feed: RelayFeed | undefined;
  #fed: boolean | undefined;
  #finished = false;
  #pages = 0;
  #past = { pages: 0, dropped: 0 };

  constructor(options: ChildRelayOptions) {
    this.#options = options;
  }

  /** Whether another child passes on to this one; undefined when none was to, or it is being dialled for the first time. */
  get fed(): boolean | undefined {
    return this.#fed;
  }

  /** True while a child that is passed on to lags behind: whoever sends to this one should wait, and is given no credit. */
  get full(): boolean {
    for (const branch of this.#branches.values()) if (branch.full) return true;
    return false;
  }

  progress(): RelayProgress {
    let { pages: passedOn, dropped } = this.#past;
    for (const { counts } of this.#branches.values()) {
      passedOn += counts.pages;
      dropped += counts.dropped;
    }
    return { fed: this.#fed === true, pages: this.#pages, branches: this.#branches.size, passedOn, dropped };
  }

  /**
   * From here on passes everything on to the child of another transfer, which dials.
   * @param onOver called once, when nothing is passed on to it any more.
   */
  passTo(transfer: number, onOver: () => void): RelayBranch {
    const { pageCount, clock, log } = this.#options;
    const branch: RelayBranch = new RelayBranch({
      transfer,
      pageCount,
      clock,
      log,
      onRoom: () => this.#onRoom(),
      onOver: () => {
        this.#past.pages += branch.counts.pages;
        this.#past.dropped += branch.counts.dropped;
        this.#branches.delete(transfer);
        this.#options.onPassing(this.#branches.size > 0);
        onOver();
      },
    });
    this.#branches
      .get(transfer)
      ?.close({ code: "replaced", message: "another takes its place", fatal: true });
    this.#branches.set(transfer, branch);
    this.#options.onPassing(true);
    if (this.#finished) branch.finish();
    return branch;
  }

  /** Has another child pass on to this one, in the place of any that did. */
  feedFrom(dial: (epoch: number) => Promise<FrameLane>): void {
    this.#feed?.close({ code: "replaced", message: "another passes on to this child", fatal: true });
    if (this.#finished) return;
    const { transfer, pageCount, clock, log } = this.#options;
    this.#feed = new RelayFeed({
      transfer,
      pageCount,
      clock,
      log,
      dial,
      take: (frame) => {
        for (const run of frame.runs) this.#pages += run.pageCount;
        this.#options.take(frame);
      },
      isFull: () => this.full,
      onLinked: () => this.#setFed(true),
      onOver: () => this.#setFed(false),
    });
  }

  /** Passes on what has just been given to this child. */
  passOn(runs: readonly PageRun[]): void {
    for (const branch of this.#branches.values()) branch.passOn(runs);
  }

  /** This child has everything: it needs no feed, and what waits for others is still passed on. */
  finish(): void {
    this.#finished = true;
    this.#feed?.close({ code: "complete", message: "this child is complete", fatal: true });
    this.#fed &&= false;
    for (const branch of [...this.#branches.values()]) branch.finish();
  }

  /** Ends all of it at once. May be called twice. */
  close(end: LaneEnd): void {
    this.#finished = true;
    this.#feed?.close(end);
    this.#fed &&= false;
    for (const branch of [...this.#branches.values()]) branch.close(end);
  }

  #setFed(fed: boolean): void {
    if (this.#fed === fed) return;
    this.#fed = fed;
    this.#options.onFed(fed);
  }

  #onRoom(): void {
    if (this.full) return;
    this.#feed?.onRoom();
    this.#options.onRoom();
  }
}
