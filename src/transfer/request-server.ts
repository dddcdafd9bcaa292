import { MAX_UNSEEN_PAGES, PAGE_BYTES, SharedBits } from "../base/index.js";
import { packRun, type Frame } from "../wire/index.js";
import { AroundPages } from "./around-pages.js";
import { FrameChannel } from "./channel.js";
import { Gate } from "./gate.js";
import { OVERRUN } from "./lane-pair.js";
import type { Answers, FrameLane, LaneEnd, PageRange, SessionShare } from "./ports.js";

export interface RequestServerOptions {
  transfer: number;
  pageCount: number;
  lane: FrameLane;
  share: SessionShare;
  /** Copies consecutive pages (4096 bytes each) of guest memory into `into`. Reading a hole gives zeros. Without it, everything is passed on. */
  read?: (range: PageRange, into: Uint8Array) => void;
  /** `bytes` are those of whole frames, both directions, so far. */
  tell: {
    answered(answers: Answers, bytes: number): void;
    /** A frame, or what is left of one, that the session has to see to. */
    passedOn(frame: Frame, frameBytes: number, bytes: number): void;
    ended(end: LaneEnd): void;
  };
}

/**
 * Answers a child's requests apart from everything else the parent's agent does: those for pages that are in guest memory as they were at the instant,
 * which are nearly all. The others it passes on to the session. It decides by the session's own maps: a page is read first, and sent if it was still
 * held up after that, so that whatever the parent's writer was let do meanwhile cannot have been read.
 */
export class RequestServer {
  readonly #options: RequestServerOptions;
  readonly #channel: FrameChannel;
  readonly #gate: Gate;
  readonly #owed: SharedBits;
  readonly #held: SharedBits | undefined;
  readonly #around: AroundPages | undefined;
  readonly #page = new Uint8Array(PAGE_BYTES);

  constructor(options: RequestServerOptions) {
    const { transfer, pageCount, lane, share } = options;
    this.#options = options;
    this.#gate = new Gate(share.gate);
    // What an earlier lane has told and nobody heard is of no account any more.
    this.#gate.addUnseen(-this.#gate.unseen);
    this.#owed = new SharedBits(share.owed);
    this.#held = share.held === undefined ? undefined : new SharedBits(share.held);
    const { read } = options;
    const isThere = (page: number): boolean => this.#isThere(page);
    this.#around = read && new AroundPages({ gate: this.#gate, share, pageCount, isThere, read });
    this.#channel = new FrameChannel({
      lane,
      transfer,
      pageCount,
      handlers: {
        onFrame: (frame, frameBytes) => this.#onFrame(frame, frameBytes),
        onEnd: (end) => options.tell.ended(end),
      },
    });
  }

  attach(): void {
    this.#channel.attach();
  }

  /** Sends what the session answers. */
  send(frame: Frame): void {
    this.#channel.send(frame);
  }

  close(end: LaneEnd): void {
    this.#channel.close(end);
  }

  #onFrame(frame: Frame, frameBytes: number): void {
    const { tell } = this.#options;
    if (this.#gate.unseen > MAX_UNSEEN_PAGES) return this.#overrun();
    if (frame.kind !== "request") return tell.passedOn(frame, frameBytes, this.#channel.bytes);
    this.#gate.addUnseen(frame.pages.length);
    const answered: number[] = [];
    const others: number[] = [];
    let zeros = 0;
    for (const page of frame.pages) {
      const run = this.#read(page);
      if (run === undefined) {
        others.push(page);
        continue;
      }
      if (run.encoding === "zero") zeros += 1;
      this.#channel.send({ kind: "pages", runs: [run] });
      answered.push(page);
    }
    if (others.length > 0) tell.passedOn({ kind: "request", pages: others }, frameBytes, this.#channel.bytes);
    if (answered.length === 0) return;
    const answers = { pages: answered, zeros, ...this.#sendAround(answered) };
    tell.answered(answers, this.#channel.bytes);
  }

  /** Behind the answers, what lies around them: whoever touches memory at random waits for fewer pages then, and who goes through it does not wait for the next. */
  #sendAround(answered: readonly number[]): Pick<Answers, "around" | "aroundBytes"> {
    const around: PageRange[] = [];
    let aroundBytes = 0;
    this.#around?.begin(answered);
    for (const page of answered) {
      const runs = this.#runsAround(page);
      if (runs.length === 0) continue;
      aroundBytes += this.#channel.send({ kind: "pages", runs });
      for (const { firstPage, pageCount } of runs) around.push({ first: firstPage, count: pageCount });
    }
    return { around, aroundBytes };
  }

  #runsAround(page: number) {
    try {
      return this.#around?.take(page) ?? [];
    } catch {
      // Nobody has asked for them: the sweep reads them again, and knows what it means.
      return [];
    }
  }

  /** The session does not keep up, or the child asks for more than it needs: it may dial again. */
  #overrun(): void {
    this.#channel.close(OVERRUN);
    this.#options.tell.ended(OVERRUN);
  }

  /** The page as it was at the instant, if guest memory has it. */
  #read(page: number) {
    const { read } = this.#options;
    if (read === undefined || !this.#isThere(page)) return undefined;
    try {
      read({ first: page, count: 1 }, this.#page);
    } catch {
      // The session reads again, and knows what it means.
      return undefined;
    }
    this.#gate.fence();
    if (!this.#isThere(page)) return undefined;
    // Never compressed: the time of a waiting processor is dearer than three kilobytes.
    return packRun({ firstPage: page, origin: "fault", bytes: this.#page, compress: false });
  }

  #isThere(page: number): boolean {
    return this.#gate.open && this.#owed.has(page) && this.#held?.has(page) !== false;
  }
}
